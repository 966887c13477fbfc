#include "patterns/deflate.hpp"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <bit>
#include <new>

namespace echolab::patterns {
namespace {

// What a flush leaves at the end of a message; the sender takes it off, the receiver adds it again
// (RFC 7692, 7.2.1).
constexpr std::string_view kTail("\x00\x00\xff\xff", 4);
constexpr std::size_t kStep = 4096;  // bytes that inflate may write at a time

Bytef* bytes_of(std::string_view text) {
  // zlib reads through a pointer to non-const, unless it is built with ZLIB_CONST.
  return const_cast<Bytef*>(reinterpret_cast<const Bytef*>(text.data()));
}

}  // namespace

std::string deflate_message(std::string_view message) {
  // A window no larger than the message: less memory to clear, the same result.
  const int window = std::clamp(static_cast<int>(std::bit_width(message.size())), 9, MAX_WBITS);
  z_stream z{};
  if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -window, window - 7,
                   Z_DEFAULT_STRATEGY) != Z_OK) {
    throw std::bad_alloc();
  }
  // deflateBound counts a stream's end, which takes no less than a flush.
  std::string out(deflateBound(&z, static_cast<uLong>(message.size())) + kTail.size() + 1, '\0');
  z.next_in = bytes_of(message);
  z.avail_in = static_cast<uInt>(message.size());
  int result = Z_OK;
  while (result == Z_OK) {
    const auto used = static_cast<std::size_t>(z.total_out);
    if (used == out.size()) out.resize(out.size() * 2);
    z.next_out = reinterpret_cast<Bytef*>(out.data() + used);
    z.avail_out = static_cast<uInt>(out.size() - used);
    result = deflate(&z, Z_SYNC_FLUSH);
    if (z.avail_out > 0) break;  // all is flushed
  }
  out.resize(static_cast<std::size_t>(z.total_out));
  deflateEnd(&z);
  out.resize(out.size() - kTail.size());
  return out;
}

struct Inflater::Stream : z_stream {};

void Inflater::End::operator()(Stream* stream) const {
  inflateEnd(stream);
  std::default_delete<Stream>()(stream);
}

Inflater::Inflater() {
  auto stream = std::make_unique<Stream>();
  if (inflateInit2(stream.get(), -MAX_WBITS) != Z_OK) throw std::bad_alloc();
  stream_.reset(stream.release());
}

Inflater::Result Inflater::add(std::string_view piece, std::string& message, std::size_t limit) {
  Stream& z = *stream_;
  z.next_in = bytes_of(piece);
  z.avail_in = static_cast<uInt>(piece.size());
  std::array<char, kStep> out;
  do {
    z.next_out = reinterpret_cast<Bytef*>(out.data());
    z.avail_out = static_cast<uInt>(out.size());
    if (z.avail_in > 0) at_end_ = false;
    const int result = inflate(&z, Z_SYNC_FLUSH);
    const std::size_t made = out.size() - z.avail_out;
    const std::size_t room = limit - message.size();
    message.append(out.data(), std::min(made, room));
    if (made > room) return Result::too_big;
    if (result == Z_STREAM_END) {
      // Allowed within a message (RFC 7692, 7.2.3.4); what follows is a stream of its own.
      at_end_ = true;
      inflateReset(&z);
    } else if (result == Z_BUF_ERROR) {
      break;  // nothing left to do
    } else if (result != Z_OK) {
      return Result::corrupt;
    }
  } while (z.avail_in > 0 || z.avail_out == 0);
  return Result::ok;
}

Inflater::Result Inflater::finish(std::string& message, std::size_t limit) {
  if (at_end_) return Result::ok;
  const Result result = add(kTail, message, limit);
  if (result != Result::ok) return result;
  constexpr int kBetweenBlocks = 128;  // zlib.h, at inflate()
  return (stream_->data_type & kBetweenBlocks) != 0 ? Result::ok : Result::corrupt;
}

}  // namespace echolab::patterns
