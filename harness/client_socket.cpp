#include "harness/client_socket.hpp"

#include <fmt/core.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <sstream>
#include <system_error>

#include "harness/units.hpp"

namespace echolab::harness {
namespace {

// Descriptors beside the connections: standard streams, epoll, result files, child processes'
// pipes.
constexpr rlim_t kSpareDescriptors = 64;

std::string reason(int error) {
  return std::generic_category().message(error);
}

LoadError limit_error(const std::string& what, rlim_t needed) {
  return {
      LoadError::Kind::limit,
      fmt::format("{}: raise it with `ulimit -n {}` (as root beyond the hard limit) or a nofile "
                  "line in /etc/security/limits.conf, or use fewer connections",
                  what, needed)};
}

// How many connections to one address and port the kernel has local ports for; UINT64_MAX if it
// does not say.
std::uint64_t local_ports() {
  // "32768	60999". All connections go from one address to one address and port, so each needs a
  // local port of its own.
  std::istringstream range(read_text("/proc/sys/net/ipv4/ip_local_port_range").value_or(""));
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  if (!(range >> first >> last) || last < first) return UINT64_MAX;  // then connect() will tell
  return last - first + 1;
}

}  // namespace

Endpoint parse_endpoint(const std::string& text) {
  const auto fail = [&](const std::string& why) {
    return UsageError(fmt::format("address '{}': {}", text, why));
  };
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos) throw fail("expected HOST:PORT such as 127.0.0.1:7000");
  std::string host = text.substr(0, colon);
  const std::string port = text.substr(colon + 1);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string::npos) {
    throw fail("an IPv6 address needs brackets, such as [::1]:7000");
  }
  if (host.empty()) throw fail("expected HOST:PORT such as 127.0.0.1:7000");
  const bool digits = !port.empty() && port.size() <= 5 &&
                      port.find_first_not_of("0123456789") == std::string::npos;
  if (!digits || std::stoul(port) == 0 || std::stoul(port) > 65535) {
    throw fail("the port must be 1 to 65535");
  }

  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int code = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (code != 0) throw fail(::gai_strerror(code));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> all(found, ::freeaddrinfo);
  // IPv4 first: most servers that people point at by the name localhost listen on 127.0.0.1 only.
  const addrinfo* chosen = found;
  for (const addrinfo* a = found; a != nullptr; a = a->ai_next) {
    if (a->ai_family == AF_INET) {
      chosen = a;
      break;
    }
  }
  Endpoint endpoint;
  std::memcpy(&endpoint.address, chosen->ai_addr, chosen->ai_addrlen);
  endpoint.length = chosen->ai_addrlen;
  endpoint.text = text;
  return endpoint;
}

void require_local_ports(unsigned connections) {
  if (const std::uint64_t ports = local_ports(); connections > ports) {
    throw LoadError(
        LoadError::Kind::limit,
        fmt::format(
            "{} connections to one server need as many local ports and there are {}: widen "
            "the range with `sysctl net.ipv4.ip_local_port_range=\"1024 65535\"` (as root), "
            "or use fewer connections",
            connections, ports));
  }
}

void allow_connections(unsigned connections) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;  // then socket() will tell
  if (limit.rlim_cur < limit.rlim_max) {
    rlimit raised = limit;
    raised.rlim_cur = limit.rlim_max;
    if (::setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
  }
  const rlim_t needed = connections + kSpareDescriptors;
  if (limit.rlim_cur < needed) {
    throw limit_error(fmt::format("{} connections need {} descriptors, the limit is {}",
                                  connections, needed, limit.rlim_cur),
                      needed);
  }
  require_local_ports(connections);
}

Descriptor begin_connect(const Endpoint& endpoint, unsigned number, unsigned total) {
  Descriptor fd(
      ::socket(endpoint.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) throw connect_error(endpoint, number, total, errno);
  const int on = 1;
  ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  ::setsockopt(fd.get(), IPPROTO_TCP, TCP_CONGESTION, kClientCongestionControl.data(),
               kClientCongestionControl.size());
  const auto* address = reinterpret_cast<const sockaddr*>(&endpoint.address);
  if (::connect(fd.get(), address, endpoint.length) != 0 && errno != EINPROGRESS &&
      errno != EINTR) {
    throw connect_error(endpoint, number, total, errno);
  }
  return fd;
}

int socket_error(int fd) {
  int error = 0;
  socklen_t length = sizeof error;
  if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) return errno;
  return error;
}

LoadError connect_error(const Endpoint& endpoint, unsigned number, unsigned total, int error) {
  const std::string which = fmt::format("connection {} of {}", number, total);
  switch (error) {
    case EMFILE:
    case ENFILE:
      return limit_error(fmt::format("{}: the limit of descriptors is reached", which),
                         total + kSpareDescriptors);
    case EADDRNOTAVAIL:
      return {LoadError::Kind::limit,
              fmt::format("{} to {}: no local port is left (one address has only those of the "
                          "sysctl net.ipv4.ip_local_port_range): use fewer connections or wait a "
                          "minute for closed ones to go",
                          which, endpoint.text)};
    case ECONNREFUSED:
      return {LoadError::Kind::connect,
              fmt::format("cannot connect to {}: connection refused; is the server running?",
                          endpoint.text)};
    default:
      return {LoadError::Kind::connect,
              fmt::format("cannot connect to {} ({}): {}", endpoint.text, which, reason(error))};
  }
}

}  // namespace echolab::harness
