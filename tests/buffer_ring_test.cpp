// How much memory the io_uring backend gives to the kernel to receive into.
#include "backends/buffer_ring.hpp"

#include <memory>
#include <system_error>

#include "tests/catch.hpp"
#include "tests/skip.hpp"

namespace echolab::test {
namespace {

struct Fixture {
  io_uring ring{};
  bool open = io_uring_queue_init(4, &ring, 0) == 0;
  std::unique_ptr<BufferRing> made;

  Fixture() {
    if (open) {
      try {
        made = std::make_unique<BufferRing>(ring, false);
      } catch (const std::system_error&) {  // before Linux 5.19
      }
    }
    if (made == nullptr) skip("no io_uring with buffer rings here");
  }
  ~Fixture() {
    made.reset();
    if (open) io_uring_queue_exit(&ring);
  }
};

// As the kernel says that it has filled a buffer, whose bytes are then of no more use.
void fill(BufferRing& buffers, std::uint32_t buffer) {
  io_uring_cqe cqe{};
  cqe.res = BufferRing::kBufferSize;
  cqe.flags = IORING_CQE_F_BUFFER | buffer << IORING_CQE_BUFFER_SHIFT;
  buffers.pin(buffer);
  CHECK(buffers.received(cqe).size() == BufferRing::kBufferSize);
  buffers.unpin(buffer);
}

constexpr std::size_t kLeast = BufferRing::kLeastHot / BufferRing::kBufferSize;
constexpr std::size_t kMost = BufferRing::kMostHot / BufferRing::kBufferSize;

}  // namespace

TEST_CASE("buffer ring - twice as much while receives wait, up to a limit") {
  Fixture f;
  if (f.made == nullptr) return;
  BufferRing& buffers = *f.made;
  std::size_t had = buffers.refill();
  CHECK(had == kLeast);
  CHECK(buffers.refill() == kLeast);
  while (had < kMost) {
    buffers.missed();
    CHECK(buffers.refill() == 2 * had);
    had *= 2;
  }
  buffers.missed();
  CHECK(buffers.refill() == kMost);
}

TEST_CASE("buffer ring - less again while none waits") {
  Fixture f;
  if (f.made == nullptr) return;
  BufferRing& buffers = *f.made;
  for (std::size_t had = kLeast; had < kMost; had *= 2) {
    buffers.missed();
    buffers.refill();
  }
  // What the kernel has, it keeps until it fills it: the buffers were provided in their order.
  for (std::size_t turn = 0; turn < BufferRing::kCooling; ++turn) {
    CHECK(buffers.refill() == kMost);
  }
  for (std::uint32_t i = 0; i < kMost; ++i) fill(buffers, i);
  const std::size_t cooler = buffers.refill();
  CHECK(cooler < kMost / 2);
  CHECK(cooler > kMost / 4);
}

}  // namespace echolab::test
