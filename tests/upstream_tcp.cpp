// An upstream of flesh and blood: one thread that serves a listening socket as it is told.
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include "backends/sockets.hpp"
#include "tests/world.hpp"

namespace echolab::test {
namespace {

constexpr int kFullAfterMs = 100;  // a connection that is not made by then has been dropped
constexpr std::size_t kMostPending = 1 << 20;  // bytes; then it stops reading until it has sent

class TcpUpstream final : public TestUpstream {
 public:
  explicit TcpUpstream(Listens listens)
      : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)),
        wake_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    auto any = parse_address("127.0.0.1", 0);
    if (!listener_ || !wake_ || ::bind(listener_.get(), any->get(), any->length) < 0) {
      throw_errno(errno, "cannot make an upstream");
    }
    sockaddr_in bound{};
    socklen_t length = sizeof bound;
    getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&bound), &length);
    address_ = {"127.0.0.1", ntohs(bound.sin_port)};
    // A socket that is bound and does not listen keeps the port, and refuses.
    if (listens == Listens::no) return;
    ::listen(listener_.get(), listens == Listens::full ? 0 : 4096);
    if (listens == Listens::full) {
      fill();
    } else {
      thread_ = std::jthread([this](const std::stop_token& stop) { serve(stop); });
    }
  }
  ~TcpUpstream() override {
    thread_.request_stop();
    eventfd_write(wake_.get(), 1);
  }

  void behave(Habit habit, Duration delay) override {
    const std::scoped_lock lock(mutex_);
    habit_ = habit;
    delay_ = delay;
  }
  void close_all() override {
    close_all_ = true;
    eventfd_write(wake_.get(), 1);
  }
  [[nodiscard]] std::size_t accepted() const override { return accepted_; }
  [[nodiscard]] std::size_t open() const override { return open_; }

 private:
  struct Connection {
    Fd fd;
    Blob pending;
    Time due{};
    std::size_t requests = 0;
    bool closes = false;  // when nothing is pending
    bool gone = false;
  };

  // Connections that nobody accepts, until the kernel drops the requests for more.
  void fill() {
    const auto to = parse_address(address_.host, address_.port);
    for (;;) {
      Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      ::connect(fd.get(), to->get(), to->length);
      pollfd p{fd.get(), POLLOUT, 0};
      waiting_.push_back(std::move(fd));
      if (::poll(&p, 1, kFullAfterMs) == 0) return;
    }
  }

  void serve(const std::stop_token& stop) {
    std::vector<pollfd> polls;
    while (!stop.stop_requested()) {
      const Time now = std::chrono::steady_clock::now();
      Time next = kNever;
      polls.assign({{listener_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}});
      for (const Connection& c : connections_) {
        const bool due = !c.pending.empty() && c.due <= now;
        if (!c.pending.empty() && !due) next = std::min(next, c.due);
        const bool reads = c.pending.size() < kMostPending && !c.closes;
        polls.push_back(
            {c.fd.get(), static_cast<short>((reads ? POLLIN : 0) | (due ? POLLOUT : 0)), 0});
      }
      const int timeout =
          next == kNever
              ? -1
              : static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(next - now).count());
      ::poll(polls.data(), polls.size(), timeout);
      eventfd_t ignored = 0;
      eventfd_read(wake_.get(), &ignored);
      if (close_all_.exchange(false)) {
        open_ -= connections_.size();
        connections_.clear();
        continue;
      }
      for (std::size_t i = 0; i < connections_.size(); ++i) {
        Connection& c = connections_[i];
        const short events = polls[i + 2].revents;
        if ((events & POLLOUT) != 0) send(c);
        if ((events & (POLLIN | POLLHUP | POLLERR)) != 0 && !c.gone) receive(c);
      }
      open_ -= std::erase_if(connections_, [](const Connection& c) { return c.gone; });
      while (true) {
        Fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (!fd) break;
        ++accepted_;
        ++open_;
        connections_.emplace_back().fd = std::move(fd);
      }
    }
  }

  void receive(Connection& c) {
    const ssize_t n = ::recv(c.fd.get(), input_.data(), input_.size(), 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
      c.gone = true;
      return;
    }
    const Bytes request(input_.data(), static_cast<std::size_t>(n));
    const std::scoped_lock lock(mutex_);
    if (habit_ == Habit::silent) return;
    if (habit_ == Habit::hang_up || (habit_ == Habit::once && c.requests > 0)) {
      c.gone = true;
      return;
    }
    ++c.requests;
    if (c.pending.empty()) c.due = std::chrono::steady_clock::now() + delay_;
    const std::size_t part = habit_ == Habit::half ? request.size() / 2 : request.size();
    c.pending.insert(c.pending.end(), request.begin(), request.begin() + static_cast<long>(part));
    if (habit_ == Habit::chatty) c.pending.push_back({});
    c.closes = habit_ == Habit::half;
  }

  static void send(Connection& c) {
    const ssize_t n = ::send(c.fd.get(), c.pending.data(), c.pending.size(), MSG_NOSIGNAL);
    if (n < 0) {
      c.gone = errno != EAGAIN && errno != EINTR;
      return;
    }
    c.pending.erase(c.pending.begin(), c.pending.begin() + n);
    if (c.pending.empty() && c.closes) c.gone = true;
  }

  Fd listener_;
  Fd wake_;
  std::mutex mutex_;  // guards the next two
  Habit habit_ = Habit::echo;
  Duration delay_{};
  std::atomic<bool> close_all_ = false;
  std::atomic<std::size_t> accepted_ = 0;
  std::atomic<std::size_t> open_ = 0;
  std::vector<Fd> waiting_;
  std::vector<Connection> connections_;
  Blob input_ = Blob(256 * 1024);
  std::jthread thread_;  // last: it ends before what it uses
};

}  // namespace

std::unique_ptr<TestUpstream> make_tcp_upstream(TestUpstream::Listens listens) {
  return std::make_unique<TcpUpstream>(listens);
}

}  // namespace echolab::test
