// The bytes of requests: each request has its own, and any part of them can be made and checked.
#include "harness/pattern.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <set>
#include <vector>

#include "tests/catch.hpp"

using echolab::harness::Pattern;
using Message = std::vector<std::byte>;

namespace {

Message whole(const Pattern& pattern, std::uint64_t key, std::size_t size) {
  Message m(size);
  pattern.write(m.data(), key, 0, size);
  return m;
}

std::uint64_t word_of(const Message& m, std::size_t offset) {
  std::uint64_t word = 0;
  std::memcpy(&word, m.data() + offset, sizeof word);
  return word;
}

}  // namespace

TEST_CASE("messages of all connections and requests differ", "[pattern]") {
  const Pattern pattern(1);
  std::set<std::uint64_t> keys;
  std::set<std::uint64_t> messages;
  for (std::uint64_t connection = 0; connection < 100; ++connection) {
    for (std::uint64_t sequence = 0; sequence < 100; ++sequence) {
      const std::uint64_t key = pattern.key(connection, sequence);
      keys.insert(key);
      messages.insert(word_of(whole(pattern, key, 8), 0));
    }
  }
  REQUIRE(keys.size() == 10'000);
  REQUIRE(messages.size() == 10'000);
  REQUIRE(Pattern(2).key(0, 0) != pattern.key(0, 0));
}

TEST_CASE("a message does not repeat itself", "[pattern]") {
  const Pattern pattern(3);
  const Message m = whole(pattern, pattern.key(5, 6), 64 * 1024);
  std::set<std::uint64_t> words;
  for (std::size_t i = 0; i < m.size(); i += 8) words.insert(word_of(m, i));
  REQUIRE(words.size() == m.size() / 8);
}

TEST_CASE("every part of a message is what it is in the whole", "[pattern]") {
  const std::uint64_t seed = std::random_device{}();
  std::mt19937_64 random(seed);
  const Pattern pattern(seed);
  for (const std::size_t size :
       {1, 7, 8, 9, 63, 64, 65, 512, 1001, 4095, 4096, 4097, 9000, 70'001}) {
    const std::uint64_t key = pattern.key(random() % 1000, random() % 1000);
    const Message m = whole(pattern, key, size);
    for (int round = 0; round < 50; ++round) {
      const std::size_t offset = random() % size;
      const std::size_t length = 1 + random() % (size - offset);
      CAPTURE(seed, size, offset, length);
      Message part(length + 2, std::byte{0xee});
      pattern.write(part.data() + 1, key, offset, length);
      REQUIRE(std::equal(part.begin() + 1, part.end() - 1,
                         m.begin() + static_cast<std::ptrdiff_t>(offset)));
      REQUIRE(part.front() == std::byte{0xee});
      REQUIRE(part.back() == std::byte{0xee});
      REQUIRE(pattern.check(part.data() + 1, key, offset, length) == length);
      REQUIRE(pattern.at(key, offset) == m[offset]);
    }
  }
}

TEST_CASE("the first wrong byte is found wherever it is", "[pattern]") {
  const std::uint64_t seed = std::random_device{}();
  std::mt19937_64 random(seed);
  const Pattern pattern(seed);
  for (const std::size_t size : {1, 5, 64, 100, 4096, 4100, 20'000}) {
    const std::uint64_t key = pattern.key(1, 2);
    const Message m = whole(pattern, key, size);
    for (int round = 0; round < 200; ++round) {
      const std::size_t offset = random() % size;
      const std::size_t length = 1 + random() % (size - offset);
      const std::size_t wrong = random() % length;
      CAPTURE(seed, size, offset, length, wrong);
      Message part(m.begin() + static_cast<std::ptrdiff_t>(offset),
                   m.begin() + static_cast<std::ptrdiff_t>(offset + length));
      part[wrong] ^= static_cast<std::byte>(1U << (random() % 8));
      for (std::size_t i = wrong + 1; i < length; ++i) {
        if (random() % 16 == 0) part[i] ^= std::byte{0xff};
      }
      REQUIRE(pattern.check(part.data(), key, offset, length) == wrong);
    }
  }
}

TEST_CASE("shifted, swapped and foreign bytes are found", "[pattern]") {
  const Pattern pattern(7);
  const std::uint64_t key = pattern.key(3, 4);
  constexpr std::size_t size = 16 * 1024;
  const Message m = whole(pattern, key, size);
  for (const std::size_t shift : {1, 8, 64, 4096, 8192}) {
    REQUIRE(pattern.check(m.data() + shift, key, 0, size - shift) < 64);
  }
  REQUIRE(pattern.check(m.data(), pattern.key(3, 5), 0, size) < 64);
  REQUIRE(pattern.check(m.data(), pattern.key(4, 4), 0, size) < 64);
}
