#include "tests/ws_client.hpp"

#include <fmt/format.h>
#include <zlib.h>

#include <stdexcept>

namespace echolab::test {
namespace {

constexpr std::string_view kTail("\x00\x00\xff\xff", 4);

Bytef* bytes_of(std::string_view text) {
  return const_cast<Bytef*>(reinterpret_cast<const Bytef*>(text.data()));
}

std::string inflated(const std::string& message) {
  const std::string whole = message + std::string(kTail);
  z_stream z{};
  if (inflateInit2(&z, -MAX_WBITS) != Z_OK) throw std::runtime_error("inflateInit2");
  z.next_in = bytes_of(whole);
  z.avail_in = static_cast<uInt>(whole.size());
  std::string out;
  int result = Z_OK;
  while (result == Z_OK) {
    char buffer[4096];
    z.next_out = reinterpret_cast<Bytef*>(buffer);
    z.avail_out = sizeof buffer;
    result = inflate(&z, Z_SYNC_FLUSH);
    out.append(buffer, sizeof buffer - z.avail_out);
  }
  inflateEnd(&z);
  return result == Z_BUF_ERROR && z.avail_in == 0 ? out : "wrong: does not inflate";
}

std::string line_of(unsigned first, const std::string& payload) {
  const unsigned opcode = first & 15;
  const bool compressed = (first & 0x40) != 0;
  if ((first & 0x80) == 0 || (first & 0x30) != 0)
    return fmt::format("wrong: first byte {:#x}", first);
  if (compressed && opcode > 2) return "wrong: compressed control frame";
  switch (opcode) {
    case 1:
    case 2:
      return fmt::format("{}{}:{}", opcode == 1 ? "text" : "binary", compressed ? "*" : "",
                         compressed ? inflated(payload) : payload);
    case 8:
      if (payload.empty()) return "close:";
      if (payload.size() < 2) return "wrong: close of one byte";
      return fmt::format("close:{}", static_cast<unsigned char>(payload[0]) * 256U +
                                         static_cast<unsigned char>(payload[1]));
    case 9:
      return "ping:" + payload;
    case 10:
      return "pong:" + payload;
    default:
      return fmt::format("wrong: opcode {}", opcode);
  }
}

}  // namespace

std::string encode(const WsFrame& frame) {
  std::string out;
  out.push_back(static_cast<char>((frame.fin ? 0x80U : 0U) | frame.rsv << 4 | frame.opcode));
  const std::uint64_t n = frame.payload.size();
  const int extended =
      frame.length_bytes >= 0 ? frame.length_bytes : (n < 126 ? 0 : (n < 65536 ? 2 : 8));
  const std::uint64_t length = extended == 0 ? n : (extended == 2 ? 126 : 127);
  out.push_back(static_cast<char>((frame.masked ? 0x80U : 0U) | length));
  for (int i = extended; i-- > 0;) out.push_back(static_cast<char>(n >> (8 * i)));
  if (!frame.masked) return out + frame.payload;
  constexpr std::string_view kMask = "\x37\xfa\x21\x3d";
  out.append(kMask);
  for (std::size_t i = 0; i < frame.payload.size(); ++i) {
    out.push_back(static_cast<char>(frame.payload[i] ^ kMask[i % 4]));
  }
  return out;
}

std::string close_frame(unsigned code, std::string_view reason) {
  std::string payload{static_cast<char>(code >> 8), static_cast<char>(code)};
  return encode({8, payload.append(reason)});
}

std::string deflated(std::string_view message) {
  z_stream z{};
  if (deflateInit2(&z, Z_BEST_COMPRESSION, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
    throw std::runtime_error("deflateInit2");
  }
  std::string out(message.size() + message.size() / 100 + 64, '\0');
  z.next_in = bytes_of(message);
  z.avail_in = static_cast<uInt>(message.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  deflate(&z, Z_SYNC_FLUSH);
  out.resize(static_cast<std::size_t>(z.total_out) - kTail.size());
  deflateEnd(&z);
  return out;
}

std::vector<std::string> decode_frames(std::string& bytes) {
  std::vector<std::string> lines;
  std::size_t at = 0;
  const auto byte = [&](std::size_t i) -> std::uint64_t {
    return static_cast<unsigned char>(bytes[at + i]);
  };
  while (bytes.size() - at >= 2) {
    const std::uint64_t length = byte(1) & 0x7f;
    const std::size_t extended = length < 126 ? 0 : (length == 126 ? 2 : 8);
    if (bytes.size() - at < 2 + extended) break;
    std::uint64_t size = extended == 0 ? length : 0;
    for (std::size_t i = 0; i < extended; ++i) size = size << 8 | byte(2 + i);
    if (bytes.size() - at - 2 - extended < size) break;
    if ((byte(1) & 0x80) != 0) {
      lines.emplace_back("wrong: masked");
    } else {
      lines.push_back(
          line_of(static_cast<unsigned>(byte(0)), bytes.substr(at + 2 + extended, size)));
    }
    at += 2 + extended + size;
  }
  bytes.erase(0, at);
  return lines;
}

}  // namespace echolab::test
