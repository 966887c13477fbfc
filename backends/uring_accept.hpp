// How the io_uring backend takes connections: one multishot accept, or one accept after another.
//
// At the descriptor limit nobody is left waiting: a connection that cannot be kept is closed at
// once, and counted. A direct descriptor's accept does so itself; an ordinary one fails before it
// looks whether somebody is there, so the listener is polled and its reserve descriptor used.
//
// One thread.
#pragma once

#include <liburing.h>

#include <chrono>
#include <optional>

#include "backends/ring.hpp"
#include "backends/sockets.hpp"

namespace echolab {

class UringAccept {
 public:
  // Operations in tags from here on, and below UringCalls::kFirstOp, belong here.
  static constexpr std::uint8_t kFirstOp = 32;

  // A blocking listener: on others the kernel reports that nobody is there.
  UringAccept(Ring& ring, Counters& counters, Listener listener)
      : ring_(ring), counters_(counters), listener_(std::move(listener)) {}

  // Asks for connections, unless that is asked for.
  void arm();
  // Returns the descriptor (an index, if direct) of a new connection. `open` connections hold one.
  std::optional<int> completed(const io_uring_cqe& cqe, std::size_t open);
  // Takes no more. What the kernel has taken meanwhile is closed.
  void shut();
  // Nothing of it is in flight.
  [[nodiscard]] bool idle() const { return in_flight_ == 0; }

 private:
  enum class Op : std::uint8_t { accept = kFirstOp, crowd, retry, cancel, close };

  void submit(io_uring_sqe* sqe, Op op);
  void cancel(Op op);
  std::optional<int> afford(int descriptor);
  std::optional<int> at_limit();
  void retry();

  Ring& ring_;
  Counters& counters_;
  Listener listener_;
  __kernel_timespec pause_{0, std::chrono::nanoseconds(Listener::kRetry).count()};
  unsigned in_flight_ = 0;  // requests that the kernel holds
  bool armed_ = false;      // one of them is an accept, or what an accept follows
  bool shut_ = false;
};

}  // namespace echolab
