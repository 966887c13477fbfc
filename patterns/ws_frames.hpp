// WebSocket frames (RFC 6455, 5): made whole, because one frame goes to many receivers, and read
// piece by piece as they come in, by wslay.
//
// Of wslay only the frame layer is used. Its event layer checks a close reason that arrives in
// several reads wrongly, answers malformed frames without a status code, allocates what a header
// announces, and needs 9 KiB a connection.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "backends/session.hpp"

struct wslay_frame_context;

namespace echolab::patterns {

enum class WsOpcode : std::uint8_t {
  continuation = 0,
  text = 1,
  binary = 2,
  close = 8,
  ping = 9,
  pong = 10,
};
inline constexpr std::size_t kWsControlPayload = 125;  // bytes at most, RFC 6455, 5.5

// What stands before the payload of a whole message or control frame from the server: not masked,
// not fragmented.
std::string ws_head(WsOpcode, std::size_t payload, bool compressed = false);
std::string ws_frame(WsOpcode, std::string_view payload, bool compressed = false);
// The same, compressed (RFC 7692) if that is shorter.
std::string ws_deflated_frame(WsOpcode, std::string_view payload);
std::string ws_text_frame(std::string_view payload);
std::string ws_deflated_text_frame(std::string_view payload);

// Takes a client's stream apart. Knows the shape of a frame, not which may follow which.
class WsFrameReader {
 public:
  // A part of a frame, as long as what has come. A frame without payload is one empty piece.
  struct Piece {
    std::uint8_t opcode = 0;
    std::uint8_t reserved = 0;  // the bits RSV1 (4), RSV2 (2), RSV3 (1)
    bool final = false;         // FIN
    bool masked = false;
    bool first = false, last = false;  // of its frame
    std::uint64_t payload_length = 0;  // of the whole frame
    std::string_view data;             // unmasked; dies with the next call
  };
  enum class Result { piece, more, malformed };

  WsFrameReader();  // throws std::bad_alloc
  ~WsFrameReader();
  WsFrameReader(const WsFrameReader&) = delete;
  WsFrameReader& operator=(const WsFrameReader&) = delete;

  // The bytes that next() takes from, until it says `more`.
  void feed(Bytes bytes) { input_ = bytes; }
  // malformed: a control frame that is too long or not final, a length that is not written in the
  // shortest way (RFC 6455, 5.2 and 5.5).
  Result next(Piece&);
  // Exactly between two frames: a new reader could go on.
  [[nodiscard]] bool between_frames() const { return input_.empty() && unread_ == 0 && !inside_; }

 private:
  static long receive(std::uint8_t* buffer, std::size_t size, int flags, void* self);

  wslay_frame_context* context_ = nullptr;
  Bytes input_;
  std::uint64_t unread_ = 0;  // bytes that wslay has taken and not given out
  bool inside_ = false;       // a frame's first piece has been given out, not its last
  std::uint64_t left_ = 0;    // bytes of that frame
};

}  // namespace echolab::patterns
