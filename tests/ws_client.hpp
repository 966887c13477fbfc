// The client's side of a WebSocket for tests: frames as a client makes them, right and wrong, and
// the server's frames as lines of text. Shares no code with what it tests, zlib aside.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "backends/session.hpp"

namespace echolab::test {

struct WsFrame {
  unsigned opcode = 1;
  std::string payload;
  bool fin = true;
  unsigned rsv = 0;  // RSV1 is 4
  bool masked = true;
  // Bytes of extended length: 0, 2 or 8; -1: the shortest that will do.
  int length_bytes = -1;
};
std::string encode(const WsFrame&);
inline std::string text_frame(std::string payload) {
  return encode({1, std::move(payload)});
}
std::string close_frame(unsigned code, std::string_view reason = {});
// Compressed by zlib as RFC 7692 wants it.
std::string deflated(std::string_view message);

// Takes whole frames off the front of `bytes`: "text:hello", "binary:..", "ping:..", "pong:..",
// "close:1002", "close:" (no code); "text*:.." was compressed. Anything that a server must not send
// becomes "wrong: ..".
std::vector<std::string> decode_frames(std::string& bytes);

}  // namespace echolab::test
