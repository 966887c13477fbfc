// What one connection still has to send, in order. Empty most of the time, and then it owns
// nothing. Not thread-safe: its owner's loop, or its owner's lock, guards it.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "backends/session.hpp"

namespace echolab {

// Keeps a piece of a backend's receive buffer from being reused. Move-only.
class Pin {
 public:
  class Owner {
   public:
    virtual void pin(std::uint32_t buffer) noexcept = 0;
    virtual void unpin(std::uint32_t buffer) noexcept = 0;

   protected:
    ~Owner() = default;
  };

  Pin() = default;
  Pin(Owner& owner, std::uint32_t buffer) : owner_(&owner), buffer_(buffer) { owner.pin(buffer); }
  Pin(Pin&& other) noexcept
      : owner_(std::exchange(other.owner_, nullptr)), buffer_(other.buffer_) {}
  Pin& operator=(Pin&& other) noexcept {
    std::swap(owner_, other.owner_);
    std::swap(buffer_, other.buffer_);
    return *this;
  }
  ~Pin() {
    if (owner_ != nullptr) owner_->unpin(buffer_);
  }
  explicit operator bool() const { return owner_ != nullptr; }
  [[nodiscard]] bool holds(const Owner& owner, std::uint32_t buffer) const {
    return owner_ == &owner && buffer_ == buffer;
  }

 private:
  Owner* owner_ = nullptr;
  std::uint32_t buffer_ = 0;
};

class Outbox {
 public:
  // Where the forwarded pieces of an Out lie, for backends that can hold on to it.
  struct Source {
    Pin::Owner* owner = nullptr;
    std::uint32_t buffer = 0;
    std::size_t may_pin = 0;  // bytes that this outbox may hold pinned in all; the rest is copied
  };

  // Queues the effects' bytes except the first `skip`, which are already sent. Forwarded bytes are
  // pinned if there is a source and room, else copied. Returns the bytes copied.
  std::size_t take(const Out& out, std::size_t skip, const Source& source);
  std::size_t take(const Out& out, std::size_t skip) { return take(out, skip, Source{}); }

  [[nodiscard]] bool empty() const { return head_ == segments_.size(); }
  [[nodiscard]] std::size_t size() const { return size_; }      // bytes
  [[nodiscard]] std::size_t pinned() const { return pinned_; }  // bytes
  [[nodiscard]] std::size_t segments() const { return segments_.size() - head_; }

  // Describes the first bytes for one gathering send; they stay where they are until consumed, also
  // when more is queued meanwhile. Returns the number of entries used.
  std::size_t gather(iovec* entries, std::size_t capacity) const;
  void consume(std::size_t bytes);
  void clear();

 private:
  struct Segment {
    const std::byte* data = nullptr;
    std::size_t size = 0;
    std::size_t room = 0;  // bytes that may still be appended behind data + size
    std::unique_ptr<std::byte[]> owned;
    Frame frame;
    Pin pin;
  };
  void copy(Bytes);

  std::vector<Segment> segments_;
  std::size_t head_ = 0;
  std::size_t size_ = 0;
  std::size_t pinned_ = 0;
};

}  // namespace echolab
