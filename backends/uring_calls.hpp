// The server as a caller, by completion: connect, send and receive are requests in the loop's own
// ring, and the kernel says when they are done.
//
// A call over a kept connection goes out with one submission, its send and its receive together,
// and comes back as one completion: the send reports only failure, as in io_uring.cpp. A kept
// connection is watched by a poll request, which the next reply completes too.
#pragma once

#include <liburing.h>

#include "backends/calls.hpp"
#include "backends/ring.hpp"

namespace echolab {

class UringCalls final : public Calls {
 public:
  // Operations in tags from here on are upstream connections'.
  static constexpr std::uint8_t kFirstOp = 64;

  // Blocking sockets: on others the kernel reports that there is nothing yet.
  UringCalls(Ring& ring, Counters& counters, const Time& now)
      : Calls(counters, now, 0), ring_(ring) {}
  void completed(const io_uring_cqe& cqe);

 private:
  enum class Op : std::uint8_t { connect = kFirstOp, send, receive, watch, cancel };

  void connect(Link& l) override;
  void request(Link& l) override;
  void watch(Link& l) override;
  void close(Link& l) override;
  void send(Link& l, bool silent);
  void receive(Link& l);
  void submit(io_uring_sqe* sqe, Op op, Link& l);
  void release(Link& l);

  Ring& ring_;
};

}  // namespace echolab
