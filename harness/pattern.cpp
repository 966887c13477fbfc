#include "harness/pattern.hpp"

#include <algorithm>
#include <cstring>

namespace echolab::harness {
namespace {

constexpr std::size_t kWord = sizeof(std::uint64_t);

std::uint64_t load(const std::byte* from) {
  std::uint64_t word;
  std::memcpy(&word, from, kWord);
  return word;
}
void store(std::byte* to, std::uint64_t word) {
  std::memcpy(to, &word, kWord);
}

}  // namespace

Pattern::Pattern(std::uint64_t seed) : seed_(mix(seed)), table_{} {
  for (std::size_t i = 0; i < kTableWords; ++i) table_[i] = mix(mix(i + 1));
}

std::byte Pattern::at(std::uint64_t key, std::size_t offset) const {
  std::byte bytes[kWord];
  store(bytes, word(key, offset / kWord));
  return bytes[offset % kWord];
}

void Pattern::write(std::byte* to, std::uint64_t key, std::size_t offset,
                    std::size_t length) const {
  for (; length > 0 && offset % kWord != 0; --length) *to++ = at(key, offset++);
  std::size_t index = offset / kWord;
  while (length >= kWord) {
    const std::size_t start = index % kTableWords;
    const std::size_t words = std::min(kTableWords - start, length / kWord);
    const std::uint64_t block = key ^ block_key(index / kTableWords);
    const std::uint64_t* table = table_.data() + start;
    for (std::size_t i = 0; i < words; ++i) store(to + i * kWord, block ^ table[i]);
    to += words * kWord;
    index += words;
    length -= words * kWord;
  }
  if (length > 0) {
    const std::uint64_t last = word(key, index);
    std::memcpy(to, &last, length);
  }
}

std::size_t Pattern::check(const std::byte* from, std::uint64_t key, std::size_t offset,
                           std::size_t length) const {
  const std::byte* const start = from;
  const std::size_t first = offset;
  std::size_t left = length;
  std::uint64_t wrong = 0;  // any bit that differs, looked at once a block and not once a word
  for (; left > 0 && offset % kWord != 0; --left) {
    wrong |= static_cast<std::uint64_t>(*from++ ^ at(key, offset++));
  }
  std::size_t index = offset / kWord;
  while (left >= kWord && wrong == 0) {
    const std::size_t begin = index % kTableWords;
    const std::size_t words = std::min(kTableWords - begin, left / kWord);
    const std::uint64_t block = key ^ block_key(index / kTableWords);
    const std::uint64_t* table = table_.data() + begin;
    for (std::size_t i = 0; i < words; ++i) wrong |= load(from + i * kWord) ^ block ^ table[i];
    from += words * kWord;
    index += words;
    left -= words * kWord;
  }
  if (left > 0 && wrong == 0) {
    std::uint64_t last = word(key, index);
    wrong |= static_cast<std::uint64_t>(std::memcmp(from, &last, left) != 0);
  }
  if (wrong == 0) return length;
  std::size_t good = 0;
  while (start[good] == at(key, first + good)) ++good;
  return good;
}

}  // namespace echolab::harness
