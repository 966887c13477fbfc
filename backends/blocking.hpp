// Calls on a blocking socket that end by a deadline.
#pragma once

#include <sys/uio.h>

#include "backends/session.hpp"
#include "backends/sockets.hpp"
#include "backends/stats.hpp"

namespace echolab {

// SO_RCVTIMEO or SO_SNDTIMEO of one socket (socket(7)). Setting it costs a system call, so it is
// left alone while it is short enough: an idle deadline that moves on with every request costs
// none.
class SocketTimeout {
 public:
  enum class Fit {
    at_most,  // may end early, the caller looks at the clock and goes on
    exact,    // after it ended early: also lengthen or remove it
  };
  explicit SocketTimeout(int option) : option_(option) {}
  void set(const Fd& fd, Time deadline, Fit fit, Counters& counters);

 private:
  const int option_;
  Duration armed_{};  // 0: none
};

// One send of all entries. What was taken is added to the counters. No error for a timeout or a
// signal: then `sent` is short or 0.
std::error_code send_some(const Fd& fd, const iovec* entries, std::size_t used, std::size_t& sent,
                          Counters& counters);

// The error pending on the socket, connection_reset if it has been fetched already.
std::error_code pending_error(const Fd& fd);

// Waits for a reset or for both sides' FIN, until the deadline; input does not end it, signals do.
// True if the connection is gone.
bool await_hangup(const Fd& fd, Time deadline, Counters& counters);

}  // namespace echolab
