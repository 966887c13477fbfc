// Descriptors and TCP sockets: what every backend needs before the models part ways.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

namespace echolab {

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~Fd() { reset(); }

  [[nodiscard]] int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_ = -1;
};

inline std::error_code last_error() {
  return {errno, std::system_category()};
}
inline std::error_code error_of(int positive_errno) {
  return {positive_errno, std::system_category()};
}
inline std::error_code canceled() {
  return std::make_error_code(std::errc::operation_canceled);
}
[[noreturn]] void throw_errno(int positive_errno, const std::string& what);

// What bind(2) and connect(2) take.
struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;
  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};
// Empty if the host is not a numeric IPv4 or IPv6 address.
std::optional<Address> parse_address(const std::string& host, std::uint16_t port);

// A listening TCP socket. Connections inherit its TCP_NODELAY (tcp(7)): without it a reply that
// follows an unacknowledged one would wait for a delayed ACK, 40 ms.
class Listener {
 public:
  enum class Mode { blocking, nonblocking };
  // Until the next try when connections wait that can be neither taken nor refused.
  static constexpr auto kRetry = std::chrono::milliseconds(100);

  Listener() = default;
  // Throws std::invalid_argument for what is no address, else std::system_error: EADDRINUSE,
  // EACCES, EADDRNOTAVAIL. With `shared`, several listeners may bind the same port and the kernel
  // spreads connections over them (SO_REUSEPORT, socket(7)).
  Listener(const std::string& host, std::uint16_t port, Mode mode, bool shared);

  // Throws as the constructor does if the port is another server's, also one that shares it: the
  // kernel would let a group join it. To be asked before the first of a group is bound.
  static void require_free(const std::string& host, std::uint16_t port);

  // One connection; accept_flags as in accept4(2). Empty with errno set if there is none. At the
  // descriptor limit the connection is taken and closed, so that the peer learns of it at once:
  // errno is then EMFILE or ENFILE. ENOBUFS or ENOMEM: it could not even be refused and still
  // waits; to be tried again after kRetry. Any thread.
  Fd accept(int accept_flags);
  // For who accepts by other means. False: `fd` has been closed, for it was the descriptor with
  // which others are refused, taken in the moment of refusing one. Any thread.
  static bool afford(Fd& fd);
  // Takes no more connections; ends a blocking accept.
  void shut() noexcept;

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] std::uint16_t port() const { return port_; }

 private:
  Fd fd_;
  Mode mode_ = Mode::blocking;
  std::uint16_t port_ = 0;
};

}  // namespace echolab
