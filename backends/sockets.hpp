// Descriptors and TCP sockets: what every backend needs before the models part ways.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
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

// A numeric IPv4 or IPv6 address with a port, as the kernel takes it.
struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;

  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};
std::optional<Address> parse_address(const std::string& host, std::uint16_t port);

// A non-blocking socket with TCP_NODELAY whose connection to that address is under way: writable
// once it is made or has failed. Empty, with errno set, if it could not be started.
Fd start_connecting(const Address&);

// A listening TCP socket. Connections inherit its TCP_NODELAY (tcp(7)): without it a reply that
// follows an unacknowledged one would wait for a delayed ACK, 40 ms.
class Listener {
 public:
  enum class Mode { blocking, nonblocking };
  Listener() = default;
  // Throws std::invalid_argument for what is no address, else std::system_error: EADDRINUSE,
  // EACCES, EADDRNOTAVAIL. With `shared`, several listeners may bind the same port and the kernel
  // spreads connections over them (SO_REUSEPORT, socket(7)).
  Listener(const std::string& host, std::uint16_t port, Mode mode, bool shared);

  // One connection; accept_flags as in accept4(2). Empty with errno set if there is none. At the
  // descriptor limit the connection is taken and closed, so that the peer learns of it at once:
  // errno is then EMFILE or ENFILE.
  Fd accept(int accept_flags);
  // Takes no more connections; ends a blocking accept.
  void shut() noexcept;

  // Hands the descriptor over to a library that will close it.
  int release() { return fd_.release(); }

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] std::uint16_t port() const { return port_; }

 private:
  Fd fd_;
  Fd reserve_;  // given up for a moment at the descriptor limit
  std::uint16_t port_ = 0;
};

}  // namespace echolab
