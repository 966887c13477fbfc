#include "backends/sockets.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>

#include <atomic>
#include <mutex>
#include <stdexcept>

namespace echolab {
namespace {

// Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn. A thousand
// clients that connect at once fit.
constexpr int kBacklog = 4096;

// A descriptor that is given up for a moment at the limit. One for the process, and one user at a
// time: loops would take each other's.
struct Reserve {
  std::mutex lock;
  Fd fd;
  std::atomic<bool> there = false;  // fd, for who does not hold the lock
  void give_up() {
    there = false;
    fd.reset();
  }
  bool refill() {
    if (!fd) fd = Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    there = static_cast<bool>(fd);
    return there;
  }
};
Reserve& reserve() {
  static Reserve one;
  return one;
}

}  // namespace

std::optional<Address> parse_address(const std::string& host, std::uint16_t port) {
  Address a;
  if (auto* v4 = reinterpret_cast<sockaddr_in*>(&a.storage);
      inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    a.length = sizeof(sockaddr_in);
    return a;
  }
  if (auto* v6 = reinterpret_cast<sockaddr_in6*>(&a.storage);
      inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    a.length = sizeof(sockaddr_in6);
    return a;
  }
  return std::nullopt;
}

void throw_errno(int positive_errno, const std::string& what) {
  throw std::system_error(positive_errno, std::system_category(), what);
}

namespace {

// A socket that is bound and does not listen yet.
Fd bind_to(const std::string& host, std::uint16_t port, int flags, bool shared) {
  const auto address = parse_address(host, port);
  if (!address) throw std::invalid_argument("'" + host + "' is not an IPv4 or IPv6 address");
  const auto check = [&](int rc, const char* call) {
    if (rc < 0)
      throw_errno(errno, std::string(call) + " " + host + " port " + std::to_string(port));
  };
  Fd fd(::socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0));
  check(fd.get(), "cannot open a socket for");
  const int on = 1;
  check(setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on),
        "cannot set SO_REUSEADDR for");
  if (shared) {
    check(setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on),
          "cannot set SO_REUSEPORT for");
  }
  check(setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on),
        "cannot set TCP_NODELAY for");
  if (::bind(fd.get(), address->get(), address->length) < 0) {
    const int error = errno;
    const char* advice = error == EADDRINUSE      ? " (choose another port, or 0 for any free one)"
                         : error == EACCES        ? " (ports below 1024 need root)"
                         : error == EADDRNOTAVAIL ? " (no interface has this address)"
                                                  : "";
    throw_errno(error, "cannot bind " + host + " port " + std::to_string(port) + advice);
  }
  return fd;
}

}  // namespace

Listener::Listener(const std::string& host, std::uint16_t port, Mode mode, bool shared)
    : fd_(bind_to(host, port, mode == Mode::nonblocking ? SOCK_NONBLOCK : 0, shared)), mode_(mode) {
  sockaddr_storage bound{};
  socklen_t length = sizeof bound;
  if (::listen(fd_.get(), kBacklog) < 0 ||
      getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&bound), &length) < 0) {
    throw_errno(errno, "cannot listen on " + host + " port " + std::to_string(port));
  }
  port_ = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                            : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
  const std::scoped_lock lock(reserve().lock);
  reserve().refill();
}

void Listener::require_free(const std::string& host, std::uint16_t port) {
  bind_to(host, port, 0, false);
}

bool Listener::afford(Fd& fd) {
  if (reserve().there) return true;
  const std::scoped_lock lock(reserve().lock);
  if (reserve().refill()) return true;
  fd.reset();
  reserve().refill();
  return false;
}

Fd Listener::accept(int accept_flags) {
  Fd fd(::accept4(fd_.get(), nullptr, nullptr, accept_flags | SOCK_CLOEXEC));
  if (fd) {
    if (!afford(fd)) errno = EMFILE;
    return fd;
  }
  if (errno != EMFILE && errno != ENFILE) return {};
  const int limit = errno;
  // The kernel looks for a descriptor first: perhaps nobody is waiting.
  pollfd waiting{fd_.get(), POLLIN, 0};
  if (mode_ == Mode::blocking) ::poll(&waiting, 1, -1);
  const std::scoped_lock lock(reserve().lock);
  if (::poll(&waiting, 1, 0) <= 0) {
    errno = EAGAIN;
    return {};
  }
  reserve().give_up();
  // A thread that sleeps in accept4 holds a descriptor already and may take this connection first:
  // then ours must not sleep with the lock held. Who begins to accept meanwhile tries again.
  if (mode_ == Mode::blocking) ::fcntl(fd_.get(), F_SETFL, O_NONBLOCK);
  Fd victim(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (mode_ == Mode::blocking) ::fcntl(fd_.get(), F_SETFL, 0);
  const bool taken = errno == EMFILE || errno == ENFILE;  // by another thread, just now
  const int result = victim ? limit : taken ? ENOBUFS : errno;
  victim.reset();
  reserve().refill();
  errno = result;
  return {};
}

void Listener::shut() noexcept {
  ::shutdown(fd_.get(), SHUT_RDWR);
}

}  // namespace echolab
