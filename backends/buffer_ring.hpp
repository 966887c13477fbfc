// Receive buffers that the kernel picks from when bytes arrive (io_uring_register_buf_ring(3)):
// memory is held by connections that have data, not by those that wait for it.
//
// Life cycle of a buffer: provided to the kernel -> filled by one receive, or piece by piece by
// several (incremental, Linux 6.12) -> retired, when the kernel has no more use for it -> free,
// once the last reply that travels back from it has been sent -> provided again.
//
// The kernel takes buffers in the order in which they were provided, so that whatever is provided
// passes through the cache. Therefore it gets about as many as a turn needs, and of the free ones
// those that were used last. A receive that finds none waits for the next turn and costs a second
// entry, which is dearer than memory that is out of cache. So twice as much is provided as long as
// some wait, and again less bit by bit while none does. Buffers that slow readers hold are replaced
// by others, until few are left: these are not to be pinned beyond the turn, so that the kernel
// always gets one.
//
// One thread.
#pragma once

#include <liburing.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "backends/outbox.hpp"
#include "backends/session.hpp"

namespace echolab {

class BufferRing final : public Pin::Owner {
 public:
  static constexpr std::uint16_t kGroup = 0;             // the only buffer group of a ring
  static constexpr std::size_t kBufferSize = 64 * 1024;  // bytes; a whole 64 KiB message at once
  static constexpr std::uint16_t kBuffers = 256;         // 16 MiB a loop at most; a power of two
  // Bytes to be received in one turn. At least two buffers: when one is full, the same turn can go
  // on. At most a quarter of the memory: as much may wait to be sent, and slow readers hold some.
  static constexpr std::size_t kLeastHot = 2 * kBufferSize, kMostHot = 4 << 20;
  // Turns in which no receive waits for a buffer, until little more than a third is provided.
  static constexpr std::size_t kCooling = 64;
  // Buffers. When no more than these are left, what is in them must be copied rather than pinned.
  // Half of what fills kMostHot: connections that are read from go on.
  static constexpr std::size_t kFew = 32;

  // Registers with the ring; asks for incremental use if `incremental`. Throws std::system_error.
  BufferRing(io_uring& ring, bool incremental);
  ~BufferRing();
  BufferRing(const BufferRing&) = delete;
  BufferRing& operator=(const BufferRing&) = delete;

  [[nodiscard]] bool incremental() const { return incremental_; }

  // The bytes that a completion names. They stay valid while the buffer is pinned; the caller holds
  // a Pin while it looks at them.
  Input received(const io_uring_cqe& cqe);
  static std::uint16_t buffer_of(const io_uring_cqe& cqe) {
    return static_cast<std::uint16_t>(cqe.flags >> IORING_CQE_BUFFER_SHIFT);
  }

  // A receive has found no buffer, or waits for one still.
  void missed() { missed_ = true; }
  // To be called once a turn: provides what is lacking, and returns how many the kernel has.
  std::size_t refill();
  // Few are left to the kernel and to refill().
  [[nodiscard]] bool scarce() const { return provided_ + free_.size() <= kFew; }

  void pin(std::uint32_t buffer) noexcept override { ++buffers_[buffer].pins; }
  void unpin(std::uint32_t buffer) noexcept override;

 private:
  struct Buffer {
    std::uint32_t pins = 0;
    std::size_t filled = 0;  // bytes that receives have used
    bool retired = false;    // the kernel is done with it
  };
  struct Unmap {
    std::size_t size;
    void operator()(void* p) const;
  };

  [[nodiscard]] std::byte* start(std::uint32_t buffer) const {
    return memory_.get() + buffer * kBufferSize;
  }
  void provide(std::uint16_t buffer);

  io_uring& ring_;
  std::unique_ptr<std::byte[]> memory_;  // what is never provided is never touched
  std::unique_ptr<void, Unmap> entries_;
  std::vector<Buffer> buffers_ = std::vector<Buffer>(kBuffers);
  std::vector<std::uint16_t> free_;  // the one used last is taken first
  std::size_t provided_ = 0;         // with the kernel
  std::size_t usual_ = kBufferSize;  // bytes that a buffer is retired with, a moving average
  std::size_t hot_ = kLeastHot;      // bytes to be provided
  bool missed_ = false;              // in this turn
  bool incremental_ = false;
};

}  // namespace echolab
