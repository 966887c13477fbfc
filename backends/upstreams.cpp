#include "backends/upstreams.hpp"

#include <netinet/tcp.h>
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

// A socket whose connection is under way: writable once it is made or has failed. Empty, with errno
// set, if it could not be started.
Fd connect(const Address& address, Counters& counters) {
  Fd fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fd;
  const int on = 1;
  counters.add(Count::sys_sockopt);
  setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (::connect(fd.get(), address.get(), address.length) == 0 || errno == EINPROGRESS) return fd;
  const int error = errno;  // close() may set it anew
  counters.add(Count::sys_close);
  fd.reset();
  errno = error;
  return {};
}

}  // namespace

void Answer::count(Counters& counters) const {
  counters.add(Count::calls);
  if (error) counters.add(Count::calls_failed);
  if (reused) counters.add(Count::calls_reused);
}

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
  // Into a buffer of one byte more than it should get.
  Exchange(int upstream, int client, const Out::Call& call, std::span<std::byte> buffer,
           Counters& counters)
      : upstream_(upstream),
        client_(client),
        request_(call.request),
        wanted_(call.reply_size),
        buffer_(buffer),
        counters_(counters) {}

  // Until all is sent and received. `connected`: may be sent to at once.
  std::error_code run(bool connected, Time deadline) {
    bool writable = connected;
    for (;;) {
      if (writable && !request_.empty()) {
        if (const std::error_code error = send(); error) return error;
      }
      const bool whole = received_ >= wanted_;
      if (request_.empty() && whole) return {};
      pollfd& upstream = polled_[0];
      upstream = {upstream_, 0, 0};
      if (!request_.empty()) upstream.events |= POLLOUT;
      if (!whole) upstream.events |= POLLIN;
      if (const std::error_code error = wait(deadline); error) return error;
      // An error is told by the call that meets it.
      const bool failed = (upstream.revents & (POLLERR | POLLHUP)) != 0;
      writable = failed || (upstream.revents & POLLOUT) != 0;
      const bool readable = (upstream.revents & POLLIN) != 0 || (failed && request_.empty());
      if (readable && !whole) {
        if (const std::error_code error = receive(); error) return error;
      }
    }
  }
  [[nodiscard]] std::size_t received() const { return received_; }  // bytes

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
    const std::span<std::byte> rest = buffer_.subspan(received_);
    const ssize_t n = ::recv(upstream_, rest.data(), rest.size(), MSG_DONTWAIT);
    if (n > 0) {
      received_ += static_cast<std::size_t>(n);
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
  Bytes request_;  // what is still to be sent
  const std::size_t wanted_;
  const std::span<std::byte> buffer_;
  std::size_t received_ = 0;
  Counters& counters_;
  std::array<pollfd, 2> polled_{};
};

Answer Upstreams::call(const PendingCall& pending, int client, Cancellation& cancellation,
                       Counters& counters) {
  const Out::Call& call = pending.call;
  const Upstream& upstream = *call.upstream;
  Answer answer{call.id, canceled(), {}};
  if (cancellation.canceled()) return answer;
  answer.bytes.resize(call.reply_size + 1);  // to see if more comes
  bool begun = false;                        // a part of the reply came
  const auto over = [&](Fd fd, bool connected) {
    if (!cancellation.begin(fd.get())) return canceled();
    Exchange exchange(fd.get(), client, call, answer.bytes, counters);
    std::error_code error = exchange.run(connected, pending.deadline);
    begun = exchange.received() > 0;
    if (!cancellation.end(fd.get()) && error) error = canceled();
    if (!error && exchange.received() == call.reply_size) {
      keep(upstream, std::move(fd), counters);
    } else {
      counters.add(Count::sys_close);
    }
    return error;
  };
  if (Fd kept = take(upstream, counters)) {
    answer.error = over(std::move(kept), true);
    answer.reused = answer.error != std::errc::connection_reset || begun;
  }
  if (!answer.reused) {
    const auto address = parse_address(upstream.host, upstream.port);
    if (!address || call.reply_size == 0) {  // no byte would ever say that it has been answered
      answer.error = std::make_error_code(std::errc::invalid_argument);
    } else if (Fd fd = connect(*address, counters)) {
      answer.error = over(std::move(fd), false);
    } else {
      answer.error = last_error();
    }
  }
  answer.bytes.resize(answer.error ? 0 : call.reply_size);
  return answer;
}

// One that is still open and has nothing to say, as it should between two calls.
Fd Upstreams::take(const Upstream& upstream, Counters& counters) {
  for (;;) {
    Fd fd;
    {
      const std::scoped_lock lock(mutex_);
      const auto at = idle_.find(&upstream);
      if (at == idle_.end()) return {};
      expire(at->second, counters);
      if (at->second.empty()) return {};
      fd = std::move(at->second.back().fd);
      at->second.pop_back();
    }
    std::byte unexpected{};
    counters.add(Count::sys_recv);
    const ssize_t n = ::recv(fd.get(), &unexpected, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return fd;
    counters.add(Count::sys_close);
  }
}

void Upstreams::expire(std::vector<Idle>& idle, Counters& counters) const {
  const Time now = std::chrono::steady_clock::now();
  const auto fresh = std::find_if(idle.begin(), idle.end(),
                                  [&](const Idle& one) { return now - one.since < idle_time_; });
  counters.add(Count::sys_close, static_cast<std::uint64_t>(fresh - idle.begin()));
  idle.erase(idle.begin(), fresh);
}

void Upstreams::keep(const Upstream& upstream, Fd fd, Counters& counters) {
  {
    const std::scoped_lock lock(mutex_);
    std::vector<Idle>& idle = idle_[&upstream];
    expire(idle, counters);
    if (idle.size() < kMostIdle) {
      idle.push_back({std::move(fd), std::chrono::steady_clock::now()});
      return;
    }
  }
  counters.add(Count::sys_close);
}

void Upstreams::shut() {
  const std::scoped_lock lock(mutex_);
  idle_.clear();
}

}  // namespace echolab
