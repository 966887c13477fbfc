// Receive buffers that the kernel picks from when bytes arrive (io_uring_register_buf_ring(3)):
// memory is held by connections that have data, not by those that wait for it.
//
// Life cycle of a buffer: provided to the kernel -> filled by one receive, or piece by piece by
// several (incremental, Linux 6.12) -> retired, when the kernel has no more use for it -> provided
// again, once the last reply that travels back from it has been sent. Only a few buffers circulate
// at first, so that they stay in cache; more are added when the kernel runs out.
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
  static constexpr std::uint16_t kGroup = 0;               // the only buffer group of a ring
  static constexpr std::size_t kBufferSize = 64 * 1024;    // bytes; a whole 64 KiB message at once
  static constexpr std::uint16_t kBuffers = 256;           // 16 MiB a loop at most; a power of two
  static constexpr std::uint16_t kCirculatingAtFirst = 8;  // 512 KiB: fits a second-level cache

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

  // The kernel ran out. True: more were provided. False: all circulate already.
  bool grow();

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
  std::unique_ptr<std::byte[]> memory_;
  std::unique_ptr<void, Unmap> entries_;
  std::vector<Buffer> buffers_ = std::vector<Buffer>(kBuffers);
  std::uint16_t circulating_ = 0;
  bool incremental_ = false;
};

}  // namespace echolab
