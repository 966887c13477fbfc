#include "patterns/ws_frames.hpp"

#include <wslay/wslay.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "patterns/deflate.hpp"

namespace echolab::patterns {
namespace {

// RFC 6455, 5.2: the length in 7 bits, or 126 and 16 bits, or 127 and 64 bits.
constexpr std::size_t kShort = 126;
constexpr std::size_t kMedium = 65'536;

std::size_t header_size(std::uint64_t payload, bool masked) {
  const std::size_t length = payload < kShort ? 0 : payload < kMedium ? 2 : 8;
  return 2 + length + (masked ? 4 : 0);
}

}  // namespace

std::string ws_head(WsOpcode opcode, std::size_t n, bool compressed) {
  std::string head;
  constexpr unsigned kFin = 0x80;
  constexpr unsigned kRsv1 = 0x40;
  head.push_back(
      static_cast<char>(kFin | (compressed ? kRsv1 : 0) | static_cast<unsigned>(opcode)));
  int bytes = 0;
  if (n < kShort) {
    head.push_back(static_cast<char>(n));
  } else {
    bytes = n < kMedium ? 2 : 8;
    head.push_back(static_cast<char>(bytes == 2 ? 126 : 127));
  }
  while (bytes-- > 0) head.push_back(static_cast<char>(n >> (8 * bytes)));
  return head;
}

std::string ws_frame(WsOpcode opcode, std::string_view payload, bool compressed) {
  std::string frame;
  frame.reserve(header_size(payload.size(), false) + payload.size());
  return frame.append(ws_head(opcode, payload.size(), compressed)).append(payload);
}

std::string ws_deflated_frame(WsOpcode opcode, std::string_view payload) {
  const std::string compressed = deflate_message(payload);
  if (compressed.size() >= payload.size()) return ws_frame(opcode, payload);
  return ws_frame(opcode, compressed, true);
}

std::string ws_text_frame(std::string_view payload) {
  return ws_frame(WsOpcode::text, payload);
}

std::string ws_deflated_text_frame(std::string_view payload) {
  return ws_deflated_frame(WsOpcode::text, payload);
}

WsFrameReader::WsFrameReader() {
  wslay_frame_callbacks callbacks{};
  callbacks.recv_callback = &WsFrameReader::receive;
  if (wslay_frame_context_init(&context_, &callbacks, this) != 0) throw std::bad_alloc();
}

WsFrameReader::~WsFrameReader() {
  wslay_frame_context_free(context_);
}

long WsFrameReader::receive(std::uint8_t* buffer, std::size_t size, int, void* self) {
  auto& reader = *static_cast<WsFrameReader*>(self);
  const std::size_t n = std::min(size, reader.input_.size());
  if (n == 0) return -1;  // for now
  std::memcpy(buffer, reader.input_.data(), n);
  reader.input_ = reader.input_.subspan(n);
  reader.unread_ += n;
  return static_cast<long>(n);
}

WsFrameReader::Result WsFrameReader::next(Piece& piece) {
  wslay_frame_iocb frame{};
  const ssize_t n = wslay_frame_recv(context_, &frame);
  if (n == WSLAY_ERR_WANT_READ) return Result::more;  // its buffer holds more than any header
  if (n < 0) return Result::malformed;
  piece.opcode = frame.opcode;
  piece.reserved = frame.rsv;
  piece.final = frame.fin != 0;
  piece.masked = frame.mask != 0;
  piece.payload_length = frame.payload_length;
  piece.data = {reinterpret_cast<const char*>(frame.data), frame.data_length};
  piece.first = !inside_;
  if (piece.first) {
    unread_ -= header_size(frame.payload_length, piece.masked);
    left_ = frame.payload_length;
  }
  unread_ -= frame.data_length;
  left_ -= frame.data_length;
  inside_ = left_ > 0;
  piece.last = !inside_;
  return Result::piece;
}

}  // namespace echolab::patterns
