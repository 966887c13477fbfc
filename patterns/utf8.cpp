#include "patterns/utf8.hpp"

#include <cstring>

namespace echolab::patterns {
namespace {

// Eight bytes at a time while all of them are ASCII, which most text is.
std::size_t ascii_prefix(std::string_view text) {
  constexpr std::uint64_t kHighBits = 0x8080808080808080;
  std::size_t i = 0;
  for (std::uint64_t word = 0; i + sizeof word <= text.size(); i += sizeof word) {
    std::memcpy(&word, text.data() + i, sizeof word);
    if ((word & kHighBits) != 0) break;
  }
  return i;
}

}  // namespace

bool Utf8::feed(std::string_view text) {
  if (!valid_) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (missing_ == 0) {
      i += ascii_prefix(text.substr(i));
      if (i == text.size()) break;
    }
    const auto byte = static_cast<std::uint8_t>(text[i]);
    if (missing_ > 0) {
      if (byte < low_ || byte > high_) return valid_ = false;
      low_ = 0x80;
      high_ = 0xbf;
      --missing_;
    } else if (byte >= 0xc2 && byte <= 0xdf) {
      missing_ = 1;
    } else if (byte >= 0xe0 && byte <= 0xef) {
      missing_ = 2;
      if (byte == 0xe0) low_ = 0xa0;   // below: overlong
      if (byte == 0xed) high_ = 0x9f;  // above: surrogates
    } else if (byte >= 0xf0 && byte <= 0xf4) {
      missing_ = 3;
      if (byte == 0xf0) low_ = 0x90;   // below: overlong
      if (byte == 0xf4) high_ = 0x8f;  // above: beyond U+10FFFF
    } else if (byte >= 0x80) {
      return valid_ = false;
    }
  }
  return true;
}

bool is_utf8(std::string_view text) {
  Utf8 checker;
  return checker.feed(text) && checker.complete();
}

}  // namespace echolab::patterns
