// What threads that block in a connection's system calls need: deadlines, and ways to be reached.
#pragma once

#include <signal.h>
#include <sys/uio.h>

#include "backends/session.hpp"
#include "backends/sockets.hpp"
#include "backends/stats.hpp"

namespace echolab {

inline constexpr std::size_t kReceiveBuffer = 64 * 1024;  // bytes; a 64 KiB message in one recv
inline constexpr std::size_t kGather = 64;                // iovec entries per sendmsg
// Interrupts a blocking call of one thread. shutdown(SHUT_RD) would too, but it ends the input for
// good: the peer's FIN could not be awaited, and closing on unread bytes sends RST. SHUT_WR sends a
// FIN, which an abort must not.
inline constexpr int kInterrupt = SIGURG;
// A signal that arrives just before the call blocks is lost, so it is repeated until it was seen.
inline constexpr auto kInterruptEvery = std::chrono::milliseconds(2);

inline Time now() {
  return std::chrono::steady_clock::now();
}

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

// Closing it will send RST and forget what is still to be sent (SO_LINGER 0, socket(7)).
void reset_on_close(const Fd& fd, Counters& counters);

// Waits for a reset or for both sides' FIN, until the deadline; input does not end it, signals do.
// True if the connection is gone.
bool await_hangup(const Fd& fd, Time deadline, Counters& counters);

}  // namespace echolab
