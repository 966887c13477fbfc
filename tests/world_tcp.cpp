// The world over TCP: a real backend in a thread of its own, and client sockets on loopback.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <future>
#include <iostream>
#include <thread>

#include "tests/program.hpp"
#include "tests/world.hpp"

namespace echolab::test {
namespace {

constexpr auto kPoll = 500us;  // between two looks at a condition

class TcpPeer final : public Peer {
 public:
  explicit TcpPeer(int fd) : fd_(fd) {}
  ~TcpPeer() override { close(); }

  std::size_t send_some(Bytes bytes) override {
    if (bytes.empty()) return 0;
    const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0) return static_cast<std::size_t>(n);
    if (errno != EAGAIN && errno != EINTR) state_ = State::reset;
    return 0;
  }
  Blob read_some(std::size_t most) override {
    if (most == 0 || state_ == State::eof) return {};
    thread_local Blob into(256 * 1024);
    const ssize_t n = ::recv(fd_, into.data(), std::min(most, into.size()), MSG_DONTWAIT);
    if (n == 0) state_ = State::eof;
    if (n < 0 && errno != EAGAIN && errno != EINTR) state_ = State::reset;
    return {into.begin(), into.begin() + std::max<ssize_t>(n, 0)};
  }
  bool wait(bool to_read, bool to_write, Duration at_most) override {
    pollfd p{fd_, static_cast<short>((to_read ? POLLIN : 0) | (to_write ? POLLOUT : 0)), 0};
    const auto ms = std::chrono::ceil<std::chrono::milliseconds>(at_most).count();
    return ::poll(&p, 1, static_cast<int>(ms)) > 0;
  }
  void half_close() override { ::shutdown(fd_, SHUT_WR); }
  void reset() override {
    const linger off{1, 0};  // socket(7): close sends RST
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &off, sizeof off);
    close();
  }
  void close() override {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

[[noreturn]] void die(const char* why) {
  // The backend's thread cannot be ended from outside, so neither can this process in order.
  std::cerr << why << std::endl;
  std::abort();
}

// Ports that are free again are given to others: whoever connects after a stop would otherwise
// reach another test's server now and then. All of 127/8 is this machine.
std::string own_address() {
  const auto pid = static_cast<unsigned>(::getpid());  // below 2^22, proc(5)
  return fmt::format("127.{}.{}.{}", 64 + (pid >> 16), (pid >> 8) & 0xff, pid & 0xff);
}

class TcpWorld final : public World {
 public:
  TcpWorld(const Target& target, const WorldOptions& options)
      : host_(options.host.empty() ? own_address() : options.host) {
    std::signal(SIGPIPE,
                SIG_IGN);  // as every server program does; libuv writes without MSG_NOSIGNAL
    Options o;
    o.host = host_;
    o.threads = target.loops;
    o.limits = options.limits;
    backend_ = make_backend(parse_spec(target.spec), o);
  }
  ~TcpWorld() override {
    if (!runner_.joinable()) return;
    backend_->stop(Duration::zero());
    wait_for_run();
    runner_.join();
  }

  void start(std::unique_ptr<Service> service) override {
    service_ = std::make_unique<WatchedService>(std::move(service), watch, true);
    std::packaged_task<void()> task([this] { backend_->run(*service_); });
    returned_ = task.get_future();
    runner_ = std::thread(std::move(task));
  }
  std::unique_ptr<Peer> try_connect(PeerOptions options) override {
    return connect_tcp(host_, backend_->port(), options);
  }
  Backend& backend() override { return *backend_; }
  Time now() override { return std::chrono::steady_clock::now(); }
  void pass(Duration d) override { std::this_thread::sleep_for(d); }
  bool eventually(const std::function<bool()>& so) override {
    const Time end = now() + kPatience;
    while (!so()) {
      if (now() > end) return false;
      std::this_thread::sleep_for(kPoll);
    }
    return true;
  }
  void race(std::vector<std::function<bool()>> actors) override {
    std::vector<std::jthread> threads;
    for (auto& actor : actors) {
      threads.emplace_back([&actor] {
        while (actor()) {
        }
      });
    }
  }
  bool run_returned() override { return returned_.wait_for(0s) == std::future_status::ready; }

 private:
  void wait_for_run() {
    if (returned_.valid() && returned_.wait_for(2 * kPatience) != std::future_status::ready) {
      die("run() did not return although it was told to stop");
    }
  }
  void join() override {
    if (!runner_.joinable()) return;
    wait_for_run();
    runner_.join();
    service_.reset();
    returned_.get();
  }
  std::unique_ptr<TestUpstream> make_upstream(TestUpstream::Listens listens) override {
    return make_tcp_upstream(listens);
  }

  std::string host_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Service> service_;
  std::future<void> returned_;
  std::thread runner_;
};

}  // namespace

std::unique_ptr<Peer> connect_tcp(const std::string& host, std::uint16_t port,
                                  PeerOptions options) {
  sockaddr_storage address{};
  socklen_t length = 0;
  if (auto* v4 = reinterpret_cast<sockaddr_in*>(&address);
      inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    length = sizeof *v4;
  } else {
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&address);
    inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    length = sizeof *v6;
  }
  const int fd = ::socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw std::system_error(errno, std::system_category(), "socket");
  auto peer = std::make_unique<TcpPeer>(fd);
  if (options.receive_buffer > 0) {
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &options.receive_buffer, sizeof options.receive_buffer);
  }
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), length) == 0) return peer;
  if (errno == ECONNREFUSED || errno == ECONNRESET) return nullptr;
  throw std::system_error(errno, std::system_category(), "connect");
}

std::unique_ptr<World> make_world(const Target& target, const WorldOptions& options) {
  if (!target.simulated()) return std::make_unique<TcpWorld>(target, options);
  std::cout << "simulated with ECHOLAB_SEED=" << seed() << '\n';
  return make_sim_world(seed(), options);
}

}  // namespace echolab::test
