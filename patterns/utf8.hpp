// Is it UTF-8? (RFC 3629, section 4: no overlong forms, no surrogates, nothing above U+10FFFF.)
// In pieces, cut anywhere, because a WebSocket message comes in fragments.
#pragma once

#include <cstdint>
#include <string_view>

namespace echolab::patterns {

class Utf8 {
 public:
  // The next bytes. False: no continuation can make this UTF-8 any more; it stays false.
  bool feed(std::string_view);
  // Whether what was fed ends between two characters.
  [[nodiscard]] bool complete() const { return valid_ && missing_ == 0; }
  void reset() { *this = {}; }

 private:
  bool valid_ = true;
  std::uint8_t missing_ = 0;  // continuation bytes of the current character
  // What the next continuation byte may be: narrower behind some first bytes.
  std::uint8_t low_ = 0x80, high_ = 0xbf;
};

bool is_utf8(std::string_view);

}  // namespace echolab::patterns
