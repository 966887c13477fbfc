#include "backends/buffer_ring.hpp"

#include <sys/mman.h>

#include <algorithm>

#include "backends/io_uring_abi.hpp"
#include "backends/sockets.hpp"

// The kernel writes where AddressSanitizer cannot see. While a byte is the kernel's, it is
// poisoned, and while a buffer is free, so that a session that kept a pointer into it is caught.
#if defined(__SANITIZE_ADDRESS__)
#define ECHOLAB_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ECHOLAB_ASAN 1
#endif
#endif
#ifdef ECHOLAB_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#endif

namespace echolab {
namespace {

io_uring_buf_ring* as_ring(void* p) {
  return static_cast<io_uring_buf_ring*>(p);
}

}  // namespace

void BufferRing::Unmap::operator()(void* p) const {
  munmap(p, size);
}

BufferRing::BufferRing(io_uring& ring, bool incremental)
    : ring_(ring),
      memory_(std::make_unique_for_overwrite<std::byte[]>(kBuffers * kBufferSize)),
      entries_(nullptr, Unmap{kBuffers * sizeof(io_uring_buf)}) {
  void* mapped = mmap(nullptr, entries_.get_deleter().size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw_errno(errno, "cannot map the io_uring buffer ring");
  entries_.reset(mapped);

  io_uring_buf_reg registration{};
  registration.ring_addr = reinterpret_cast<std::uint64_t>(mapped);
  registration.ring_entries = kBuffers;
  registration.bgid = kGroup;
  int rc = -EINVAL;
  if (incremental) {
    registration.pad = uring_abi::kBufferRingIncremental;
    rc = io_uring_register_buf_ring(&ring_, &registration, 0);
    incremental_ = rc == 0;
  }
  if (rc == -EINVAL) {
    registration.pad = 0;
    rc = io_uring_register_buf_ring(&ring_, &registration, 0);
  }
  if (rc < 0) throw_errno(-rc, "cannot register the io_uring buffer ring");
  io_uring_buf_ring_init(as_ring(mapped));
  free_.reserve(kBuffers);  // unpin() must not fail
  ASAN_POISON_MEMORY_REGION(memory_.get(), kBuffers * kBufferSize);
  for (std::uint16_t i = kBuffers; i > 0; --i) free_.push_back(static_cast<std::uint16_t>(i - 1));
  refill();
}

BufferRing::~BufferRing() {
  io_uring_unregister_buf_ring(&ring_, kGroup);
  ASAN_UNPOISON_MEMORY_REGION(memory_.get(), kBuffers * kBufferSize);
}

void BufferRing::provide(std::uint16_t buffer) {
  io_uring_buf_ring_add(as_ring(entries_.get()), start(buffer), kBufferSize, buffer,
                        io_uring_buf_ring_mask(kBuffers), 0);
  io_uring_buf_ring_advance(as_ring(entries_.get()), 1);
  ++provided_;
}

Input BufferRing::received(const io_uring_cqe& cqe) {
  const std::uint16_t i = buffer_of(cqe);
  Buffer& b = buffers_[i];
  const Input bytes(start(i) + b.filled, static_cast<std::size_t>(std::max(cqe.res, 0)));
  ASAN_UNPOISON_MEMORY_REGION(bytes.data(), bytes.size());
  b.filled += bytes.size();
  b.retired = !incremental_ || (cqe.flags & uring_abi::kCqeBufferMore) == 0;
  if (b.retired) {
    --provided_;
    usual_ = (7 * usual_ + b.filled) / 8;
  }
  return bytes;
}

std::size_t BufferRing::refill() {
  hot_ = missed_ ? std::min(2 * hot_, kMostHot) : std::max(hot_ - hot_ / kCooling, kLeastHot);
  missed_ = false;
  const std::size_t wanted = hot_ / std::max<std::size_t>(usual_, 1);
  while (provided_ < wanted && !free_.empty()) {
    provide(free_.back());
    free_.pop_back();
  }
  return provided_;
}

void BufferRing::unpin(std::uint32_t buffer) noexcept {
  Buffer& b = buffers_[buffer];
  if (--b.pins > 0 || !b.retired) return;
  b = Buffer{};
  ASAN_POISON_MEMORY_REGION(start(buffer), kBufferSize);
  free_.push_back(static_cast<std::uint16_t>(buffer));
}

}  // namespace echolab
