#include "backends/sockets.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>

#include <cstring>
#include <stdexcept>

namespace echolab {
namespace {

// Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn. A thousand
// clients that connect at once fit.
constexpr int kBacklog = 4096;

}  // namespace

std::optional<Address> parse_address(const std::string& host, std::uint16_t port) {
  Address a;
  if (auto* v4 = reinterpret_cast<sockaddr_in*>(&a.storage);
      inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    a.length = sizeof(sockaddr_in);
  } else if (auto* v6 = reinterpret_cast<sockaddr_in6*>(&a.storage);
             inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    a.length = sizeof(sockaddr_in6);
  } else {
    return std::nullopt;
  }
  return a;
}

Fd start_connecting(const Address& address) {
  Fd fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fd;
  const int on = 1;
  setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (::connect(fd.get(), address.get(), address.length) == 0 || errno == EINPROGRESS) return fd;
  const int error = errno;  // close() may set it anew
  fd.reset();
  errno = error;
  return {};
}

void throw_errno(int positive_errno, const std::string& what) {
  throw std::system_error(positive_errno, std::system_category(), what);
}

Listener::Listener(const std::string& host, std::uint16_t port, Mode mode, bool shared) {
  const std::optional<Address> parsed = parse_address(host, port);
  if (!parsed) throw std::invalid_argument("'" + host + "' is not an IPv4 or IPv6 address");
  const Address& address = *parsed;
  const auto check = [&](int rc, const char* call) {
    if (rc < 0)
      throw_errno(errno, std::string(call) + " " + host + " port " + std::to_string(port));
  };
  const int flags = SOCK_STREAM | SOCK_CLOEXEC | (mode == Mode::nonblocking ? SOCK_NONBLOCK : 0);
  fd_ = Fd(::socket(address.storage.ss_family, flags, 0));
  check(fd_.get(), "cannot open a socket for");
  const int on = 1;
  check(setsockopt(fd_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on),
        "cannot set SO_REUSEADDR for");
  if (shared) {
    check(setsockopt(fd_.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on),
          "cannot set SO_REUSEPORT for");
  }
  check(setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on),
        "cannot set TCP_NODELAY for");
  if (::bind(fd_.get(), address.get(), address.length) < 0) {
    const int error = errno;
    const char* advice = error == EADDRINUSE      ? " (choose another port, or 0 for any free one)"
                         : error == EACCES        ? " (ports below 1024 need root)"
                         : error == EADDRNOTAVAIL ? " (no interface has this address)"
                                                  : "";
    throw_errno(error, "cannot bind " + host + " port " + std::to_string(port) + advice);
  }
  check(::listen(fd_.get(), kBacklog), "cannot listen on");

  sockaddr_storage bound{};
  socklen_t length = sizeof bound;
  check(getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&bound), &length),
        "cannot read the port of");
  port_ = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                            : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
  reserve_ = Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
}

Fd Listener::accept(int accept_flags) {
  Fd fd(::accept4(fd_.get(), nullptr, nullptr, accept_flags | SOCK_CLOEXEC));
  if (fd || (errno != EMFILE && errno != ENFILE) || !reserve_) return fd;
  const int limit = errno;
  reserve_.reset();
  Fd victim(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  const int result = victim ? limit : errno;  // nobody may have been waiting
  victim.reset();
  reserve_ = Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  errno = result;
  return {};
}

void Listener::shut() noexcept {
  ::shutdown(fd_.get(), SHUT_RDWR);
}

}  // namespace echolab
