#include "backends/upstreams.hpp"

#include <poll.h>

#include <algorithm>
#include <array>

namespace echolab {
namespace {

// Idle connections kept for each upstream: as many as there are callers at the same time on a busy
// server, yet a fraction of the 1024 descriptors that a process has by default.
constexpr std::size_t kMostIdle = 256;

// The peer can end a connection by FIN or by RST, before or during a send: to a caller it is one.
std::error_code lost_or(int error) {
  return error_of(error == EPIPE ? ECONNRESET : error);
}

}  // namespace

void Cancellation::cancel() noexcept {
  const std::scoped_lock lock(mutex_);
  canceled_ = true;
  for (const int fd : under_way_) ::shutdown(fd, SHUT_RDWR);  // ends its poll
}

bool Cancellation::canceled() {
  const std::scoped_lock lock(mutex_);
  return canceled_;
}

bool Cancellation::begin(int fd) {
  const std::scoped_lock lock(mutex_);
  if (!canceled_) under_way_.push_back(fd);
  return !canceled_;
}

bool Cancellation::end(int fd) {
  const std::scoped_lock lock(mutex_);
  std::erase(under_way_, fd);
  return !canceled_;
}

PendingCall::PendingCall(Out::Call&& asked) : call(std::move(asked)) {
  const Time now = std::chrono::steady_clock::now();
  deadline = call.timeout < kNever - now ? now + call.timeout : kNever;
}

// One request and its reply over one connection. Both ways at once: an upstream that answers while
// it still reads would otherwise stop reading when nobody takes its answer.
class Upstreams::Exchange {
 public:
  Exchange(int upstream, int client, Bytes request, std::span<std::byte> reply, Counters& counters)
      : upstream_(upstream),
        client_(client),
        request_(request),
        reply_(reply),
        counters_(counters) {}

  // Until all is sent and received. `connected`: may be sent to at once.
  std::error_code run(bool connected, Time deadline) {
    bool writable = connected;
    for (;;) {
      if (writable && !request_.empty()) {
        if (const std::error_code error = send(); error) return error;
      }
      if (request_.empty() && reply_.empty()) return {};
      pollfd& upstream = polled_[0];
      upstream = {upstream_, 0, 0};
      if (!request_.empty()) upstream.events |= POLLOUT;
      if (!reply_.empty()) upstream.events |= POLLIN;
      if (const std::error_code error = wait(deadline); error) return error;
      // An error is told by the call that meets it.
      const bool failed = (upstream.revents & (POLLERR | POLLHUP)) != 0;
      writable = failed || (upstream.revents & POLLOUT) != 0;
      const bool readable = (upstream.revents & POLLIN) != 0 || (failed && request_.empty());
      if (readable && !reply_.empty()) {
        if (const std::error_code error = receive(); error) return error;
      }
    }
  }
  [[nodiscard]] bool answered() const { return answered_; }  // at least in part

 private:
  std::error_code send() {
    counters_.add(Count::sys_send);
    const ssize_t n =
        ::send(upstream_, request_.data(), request_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0) {
      request_ = request_.subspan(static_cast<std::size_t>(n));
    } else if (errno == EAGAIN) {
      counters_.add(Count::eagain);
    } else if (errno != EINTR) {
      return lost_or(errno);
    }
    return {};
  }

  std::error_code receive() {
    counters_.add(Count::sys_recv);
    const ssize_t n = ::recv(upstream_, reply_.data(), reply_.size(), MSG_DONTWAIT);
    if (n > 0) {
      answered_ = true;
      reply_ = reply_.subspan(static_cast<std::size_t>(n));
    } else if (n == 0) {
      return error_of(ECONNRESET);
    } else if (errno == EAGAIN) {
      counters_.add(Count::eagain);
    } else if (errno != EINTR) {
      return lost_or(errno);
    }
    return {};
  }

  // For the upstream. Without POLLIN, the client shows nothing but its end.
  std::error_code wait(Time deadline) {
    for (;;) {
      constexpr std::int64_t kLongest = 60'000;  // ms; then the clock is read again
      const Duration left = deadline - std::chrono::steady_clock::now();
      if (left <= Duration::zero()) return std::make_error_code(std::errc::timed_out);
      const std::int64_t ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
      polled_[1] = {client_, 0, 0};
      counters_.add(Count::sys_wait);
      const int n =
          ::poll(polled_.data(), polled_.size(), static_cast<int>(std::min(ms, kLongest)));
      if (n > 0) return polled_[1].revents != 0 ? canceled() : std::error_code();
      if (n < 0 && errno != EINTR) return last_error();
    }
  }

  const int upstream_;
  const int client_;
  Bytes request_;               // what is still to be sent
  std::span<std::byte> reply_;  // what is still to be received
  Counters& counters_;
  std::array<pollfd, 2> polled_{};
  bool answered_ = false;
};

Answer Upstreams::call(const PendingCall& pending, int client, Cancellation& cancellation,
                       Counters& counters) {
  const Out::Call& call = pending.call;
  const Upstream& upstream = *call.upstream;
  if (cancellation.canceled()) return {call.id, canceled(), {}};
  counters.add(Count::calls);
  Answer answer{call.id, {}, std::vector<std::byte>(call.reply_size)};
  bool answered = false;
  const auto over = [&](Fd fd, bool connected) {
    answer.error = canceled();
    if (cancellation.begin(fd.get())) {
      Exchange exchange(fd.get(), client, call.request, answer.bytes, counters);
      const std::error_code error = exchange.run(connected, pending.deadline);
      answered = exchange.answered();
      if (cancellation.end(fd.get()) || !error) answer.error = error;
    }
    if (!answer.error) return keep(upstream, std::move(fd), counters);
    counters.add(Count::sys_close);
  };

  Fd kept = take(upstream, counters);
  bool anew = !kept;
  if (kept) {
    counters.add(Count::calls_reused);
    over(std::move(kept), true);
    anew = answer.error == std::errc::connection_reset && !answered;
  }
  if (anew) {
    if (const auto address = parse_address(upstream.host, upstream.port); !address) {
      answer.error = std::make_error_code(std::errc::invalid_argument);
    } else if (Fd fd = start_connecting(*address)) {
      over(std::move(fd), false);
    } else {
      answer.error = last_error();
    }
  }
  if (answer.error) {
    counters.add(Count::calls_failed);
    answer.bytes.clear();
  }
  return answer;
}

// One that is still open and has nothing to say, as it should between two calls.
Fd Upstreams::take(const Upstream& upstream, Counters& counters) {
  for (;;) {
    Fd fd;
    {
      const std::scoped_lock lock(mutex_);
      const auto at = idle_.find(&upstream);
      if (at == idle_.end() || at->second.empty()) return {};
      fd = std::move(at->second.back());
      at->second.pop_back();
    }
    std::byte unexpected{};
    counters.add(Count::sys_recv);
    const ssize_t n = ::recv(fd.get(), &unexpected, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return fd;
    counters.add(Count::sys_close);
  }
}

void Upstreams::keep(const Upstream& upstream, Fd fd, Counters& counters) {
  {
    const std::scoped_lock lock(mutex_);
    std::vector<Fd>& idle = idle_[&upstream];
    if (idle.size() < kMostIdle) {
      idle.push_back(std::move(fd));
      return;
    }
  }
  counters.add(Count::sys_close);
}

}  // namespace echolab
