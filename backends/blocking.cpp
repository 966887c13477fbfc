#include "backends/blocking.hpp"

#include <poll.h>
#include <sys/time.h>

#include <algorithm>

namespace echolab {

void SocketTimeout::set(const Fd& fd, Time deadline, Fit fit, Counters& counters) {
  Duration wanted{};
  if (deadline != kNever) {
    const Duration left = deadline - now();
    wanted = std::max<Duration>(std::chrono::ceil<std::chrono::milliseconds>(left),
                                std::chrono::milliseconds(1));
  }
  const bool none = armed_ == Duration::zero();
  const bool fits =
      wanted == armed_ || (fit == Fit::at_most && !none && (wanted > armed_ || deadline == kNever));
  if (fits) return;
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(wanted).count();
  const timeval value{us / 1'000'000, us % 1'000'000};
  counters.add(Count::sys_sockopt);
  setsockopt(fd.get(), SOL_SOCKET, option_, &value, sizeof value);
  armed_ = wanted;
}

std::error_code send_some(const Fd& fd, const iovec* entries, std::size_t used, std::size_t& sent,
                          Counters& counters) {
  std::size_t wanted = 0;
  for (std::size_t i = 0; i < used; ++i) wanted += entries[i].iov_len;
  counters.add(Count::sys_send);
  ssize_t n = 0;
  if (used == 1) {
    n = ::send(fd.get(), entries->iov_base, wanted, MSG_NOSIGNAL);
  } else {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(entries);
    message.msg_iovlen = used;
    n = ::sendmsg(fd.get(), &message, MSG_NOSIGNAL);
  }
  sent = static_cast<std::size_t>(std::max<ssize_t>(n, 0));
  counters.add(Count::bytes_out, sent);
  if (n < 0) {
    if (errno != EAGAIN && errno != EINTR) return last_error();
    counters.add(Count::eagain);
  } else if (sent < wanted) {
    counters.add(Count::short_sends);
  }
  return {};
}

std::error_code pending_error(const Fd& fd) {
  int error = 0;
  socklen_t length = sizeof error;
  getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &length);
  return error_of(error != 0 ? error : ECONNRESET);
}

void reset_on_close(const Fd& fd, Counters& counters) {
  const linger at_once{1, 0};
  counters.add(Count::sys_sockopt);
  setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

bool await_hangup(const Fd& fd, Time deadline, Counters& counters) {
  constexpr std::int64_t kLongest = 60'000;  // ms; then the caller looks again
  std::int64_t timeout = kLongest;
  if (deadline != kNever) {
    const Duration left = deadline - now();
    timeout = std::clamp<std::int64_t>(std::chrono::ceil<std::chrono::milliseconds>(left).count(),
                                       0, kLongest);
  }
  pollfd hangup{fd.get(), 0, 0};
  counters.add(Count::sys_wait);
  return ::poll(&hangup, 1, static_cast<int>(timeout)) > 0;
}

}  // namespace echolab
