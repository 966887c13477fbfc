#include "backends/outbox.hpp"

#include <algorithm>
#include <cstring>

namespace echolab {
namespace {

// Bytes per block of copied output: a few pages, so that a slow reader's thousand small replies
// cost one allocation, yet a waiting connection does not hold much more than it needs.
constexpr std::size_t kBlock = 16 * 1024;

}  // namespace

std::size_t Outbox::take(const Out& out, std::size_t skip, const Source& source) {
  std::size_t copied = 0;
  for (std::size_t i = 0; i < out.pieces(); ++i) {
    Bytes bytes = out.bytes(i);
    const std::size_t sent = std::min(skip, bytes.size());
    skip -= sent;
    bytes = bytes.subspan(sent);
    if (bytes.empty()) continue;

    const Out::Piece& piece = out.piece(i);
    if (piece.kind == Out::Piece::Kind::shared) {
      segments_.push_back({bytes.data(), bytes.size(), 0, nullptr, piece.frame, {}});
      size_ += bytes.size();
    } else if (piece.kind == Out::Piece::Kind::forwarded && source.owner != nullptr &&
               pinned_ + bytes.size() <= source.may_pin) {
      // What follows directly in the same buffer grows the last segment: one entry per send.
      if (!empty() && segments_.back().pin.holds(*source.owner, source.buffer) &&
          segments_.back().data + segments_.back().size == bytes.data()) {
        segments_.back().size += bytes.size();
      } else {
        segments_.push_back(
            {bytes.data(), bytes.size(), 0, nullptr, {}, Pin(*source.owner, source.buffer)});
      }
      size_ += bytes.size();
      pinned_ += bytes.size();
    } else {
      copy(bytes);
      copied += bytes.size();
    }
  }
  return copied;
}

void Outbox::copy(Bytes bytes) {
  size_ += bytes.size();
  if (!empty() && segments_.back().room > 0) {
    Segment& last = segments_.back();
    const std::size_t n = std::min(last.room, bytes.size());
    std::memcpy(last.owned.get() + (last.data - last.owned.get()) + last.size, bytes.data(), n);
    last.size += n;
    last.room -= n;
    bytes = bytes.subspan(n);
  }
  if (bytes.empty()) return;
  const std::size_t capacity = std::max(kBlock, bytes.size());
  auto block = std::make_unique_for_overwrite<std::byte[]>(capacity);
  std::memcpy(block.get(), bytes.data(), bytes.size());
  const std::byte* data = block.get();
  segments_.push_back({data, bytes.size(), capacity - bytes.size(), std::move(block), {}, {}});
}

std::size_t Outbox::gather(iovec* entries, std::size_t capacity) const {
  const std::size_t n = std::min(capacity, segments());
  for (std::size_t i = 0; i < n; ++i) {
    const Segment& s = segments_[head_ + i];
    entries[i] = {const_cast<std::byte*>(s.data), s.size};
  }
  return n;
}

void Outbox::consume(std::size_t bytes) {
  size_ -= bytes;
  while (bytes > 0) {
    Segment& s = segments_[head_];
    const std::size_t n = std::min(bytes, s.size);
    if (s.pin) pinned_ -= n;
    bytes -= n;
    s.data += n;
    s.size -= n;
    if (s.size == 0) {
      s = Segment{};
      ++head_;
    }
  }
  // A slow reader's outbox may never run empty: drop the sent half once it is the larger one.
  if (2 * head_ >= segments_.size()) {
    segments_.erase(segments_.begin(), segments_.begin() + static_cast<std::ptrdiff_t>(head_));
    head_ = 0;
  }
}

void Outbox::clear() {
  segments_.clear();
  head_ = size_ = pinned_ = 0;
}

}  // namespace echolab
