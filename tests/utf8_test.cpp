// The UTF-8 checker against the definition, exhaustively where that is possible.

#include "patterns/utf8.hpp"

#include <random>
#include <string>

#include "tests/catch.hpp"
#include "tests/world.hpp"

namespace echolab::test {
namespace {

using patterns::is_utf8;
using patterns::Utf8;

std::string encode(std::uint32_t c) {
  const auto byte = [](std::uint32_t bits) { return static_cast<char>(bits); };
  if (c < 0x80) return {byte(c)};
  if (c < 0x800) return {byte(0xc0 | c >> 6), byte(0x80 | (c & 0x3f))};
  if (c < 0x10000) {
    return {byte(0xe0 | c >> 12), byte(0x80 | (c >> 6 & 0x3f)), byte(0x80 | (c & 0x3f))};
  }
  return {byte(0xf0 | c >> 18), byte(0x80 | (c >> 12 & 0x3f)), byte(0x80 | (c >> 6 & 0x3f)),
          byte(0x80 | (c & 0x3f))};
}

// The length of the character that `text` begins with; 0 if there is none. By decoding it and
// encoding it again: only the right form comes back as it was.
std::size_t character(std::string_view text) {
  const auto at = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  if (text.empty()) return 0;
  const std::size_t length = at(0) < 0x80 ? 1 : at(0) < 0xe0 ? 2 : at(0) < 0xf0 ? 3 : 4;
  if (text.size() < length) return 0;
  std::uint32_t c = length == 1 ? at(0) : at(0) & (0xff >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) c = c << 6 | (at(i) & 0x3f);
  if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) return 0;
  return encode(c) == text.substr(0, length) ? length : 0;
}

bool by_definition(std::string_view text) {
  while (!text.empty()) {
    const std::size_t length = character(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

TEST_CASE("utf8: every code point, and no surrogate") {
  std::size_t wrong = 0;
  for (std::uint32_t c = 0; c <= 0x110100; ++c) {
    const bool valid = c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);
    if (is_utf8(encode(c)) != valid) ++wrong;
  }
  CHECK(wrong == 0);
}

TEST_CASE("utf8: every sequence of one to three bytes agrees with the definition") {
  std::size_t wrong = 0;
  std::string text;
  for (int a = 0; a < 256; ++a) {
    for (int b = -1; b < 256; ++b) {
      // Inside a range all third bytes behave as its ends do.
      for (const int c : {-1, 0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc2, 0xff}) {
        if (b < 0 && c >= 0) continue;
        text.assign(1, static_cast<char>(a));
        if (b >= 0) text += static_cast<char>(b);
        if (c >= 0) text += static_cast<char>(c);
        if (is_utf8(text) != by_definition(text)) ++wrong;
      }
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("utf8: in pieces, cut anywhere, as in one") {
  std::mt19937_64 random(seed());
  std::size_t valid = 0;
  for (std::size_t round = 0; round < scaled(20'000, 2'000); ++round) {
    std::string text;
    while (random() % 12 != 0) {
      constexpr std::uint32_t kEdges[] = {'a', 0x7f, 0x80, 0x7ff, 0x800, 0xfffd, 0x10000, 0x10ffff};
      text += encode(kEdges[random() % std::size(kEdges)]);
    }
    if (!text.empty() && random() % 2 == 0) text[random() % text.size()] ^= 1 << random() % 8;
    const bool expected = by_definition(text);
    valid += expected ? 1 : 0;
    Utf8 checker;
    bool alive = true;
    for (std::string_view rest = text; !rest.empty();) {
      const std::size_t n = 1 + random() % rest.size();
      alive = checker.feed(rest.substr(0, n));
      rest.remove_prefix(n);
    }
    REQUIRE((alive && checker.complete()) == expected);
    checker.reset();
    REQUIRE(checker.complete());
  }
  CHECK(valid > 100);
}

TEST_CASE("utf8: a piece that nothing can complete fails at once") {
  Utf8 checker;
  CHECK(checker.feed("ab\xe2\x82"));
  CHECK(!checker.complete());
  CHECK(checker.feed("\xac"));
  CHECK(checker.complete());
  CHECK(checker.feed("\xf4"));
  CHECK(!checker.feed("\x90"));  // beyond U+10FFFF, whatever follows
  CHECK(!checker.feed("a"));
  CHECK(!checker.complete());
}

}  // namespace
}  // namespace echolab::test
