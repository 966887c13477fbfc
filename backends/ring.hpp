// One io_uring: set up as the variant asks and the kernel grants, submitted to and waited on.
//
// Created disabled by any thread; it belongs to the thread that calls enable() (SINGLE_ISSUER,
// io_uring_setup(2)), which makes all further calls.
#pragma once

#include <liburing.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backends/buffer_ring.hpp"
#include "backends/session.hpp"
#include "backends/sockets.hpp"
#include "backends/stats.hpp"

namespace echolab {

// What a completion says about what it completes: operation, 24 bits of generation, slot. One that
// outlives its connection finds nothing.
inline constexpr std::uint32_t kRingTagGeneration = 0xffffff;  // the bits that there is room for
inline std::uint64_t ring_tag(std::uint8_t op, ConnId id) {
  return std::uint64_t{op} << 56 | std::uint64_t{id.generation & kRingTagGeneration} << 32 |
         id.slot;
}

class Ring {
 public:
  struct Config {
    bool multishot = true;  // multishot accept and receive, provided buffers
    bool tuned = true;    // set-up flags, direct descriptors, incremental buffers, registered ring
    bool sqpoll = false;  // a kernel thread submits
  };

  // Throws std::system_error if there is no io_uring to be had. What is not granted is left out,
  // and features() says so. The counters outlive the ring.
  Ring(const Config& config, Counters& counters);

  void enable();  // throws std::system_error

  // A free submission entry, never null. When the ring is full, what is in it is submitted first;
  // throws std::system_error if the kernel does not take it.
  io_uring_sqe* entry();
  // An entry filled in to cancel what has this tag.
  io_uring_sqe* cancel(std::uint64_t tag);
  // Fill in an entry for the kind of descriptor that this ring accepts sockets as.
  void prepare_accept(io_uring_sqe* sqe, int listener) const;
  void prepare_close(io_uring_sqe* sqe, int fd) const;
  // If direct(): completes with an ordinary descriptor of the same socket, or fails before
  // Linux 6.8.
  static void prepare_install(io_uring_sqe* sqe, int fd);
  // Submits all entries and sleeps until something completes, at most until `until` (kNever: no
  // limit; past: does not sleep). One system call. True: whatever could be carried out while it was
  // submitted has been, and its completion, if it was to have one, is there.
  bool wait(Time until);
  // Calls handle(cqe) for each completion, and returns their number.
  template <class Handle>
  unsigned completions(Handle&& handle) {
    unsigned n = 0;
    unsigned head = 0;
    io_uring_cqe* cqe = nullptr;
    io_uring_for_each_cqe(&ring_, head, cqe) {
      handle(*cqe);
      ++n;
    }
    io_uring_cq_advance(&ring_, n);
    return n;
  }

  [[nodiscard]] bool multishot() const { return buffers_.has_value(); }
  // Whether a send may report failure only, and still be known to have succeeded: the call that
  // submits it carries it out (not so with sqpoll), and success can be left out.
  [[nodiscard]] bool silent() const { return silent_; }
  [[nodiscard]] bool direct() const { return slots_ > 0; }    // accepted sockets are direct ones
  [[nodiscard]] std::size_t slots() const { return slots_; }  // for direct descriptors
  [[nodiscard]] BufferRing& buffers() { return *buffers_; }   // only if multishot()
  [[nodiscard]] const std::vector<Feature>& features() const { return features_; }

 private:
  struct Exit {
    void operator()(io_uring* ring) const { io_uring_queue_exit(ring); }
  };
  void create();
  void set_up_buffers();
  void set_up_descriptors();
  void feature(const char* name, bool asked, bool granted, const std::string& note);

  const Config config_;
  Counters& counters_;
  io_uring ring_{};
  std::unique_ptr<io_uring, Exit> exit_;
  std::optional<BufferRing> buffers_;
  unsigned slots_ = 0;
  bool silent_ = false;
  std::vector<Feature> features_;
};

// What wakes the thread that waits on a ring.
class RingWake {
 public:
  explicit RingWake(Counters& counters);  // throws std::system_error
  // The next wake() completes with this tag.
  void arm(Ring& ring, std::uint64_t tag);
  void wake() noexcept;  // any thread

 private:
  Counters& counters_;
  Fd event_;
  std::uint64_t value_ = 0;  // written by the kernel
};

}  // namespace echolab
