// One interface over the I/O models, and the catalogue of what there is to choose from.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "backends/session.hpp"
#include "backends/stats.hpp"

namespace echolab {

// Bounds per connection. Backpressure: at high_water bytes waiting to be sent, reading stops; at
// low_water it goes on. Only posts, and sessions that answer more than they are asked, can go
// beyond: at outbox_limit the connection is closed with no_buffer_space.
struct Limits {
  std::size_t high_water = 256 * 1024;          // bytes; a few socket buffers' worth
  std::size_t low_water = 64 * 1024;            // bytes; far enough below to batch the restarts
  std::size_t outbox_limit = 16 * 1024 * 1024;  // bytes
  std::size_t pinned = 256 * 1024;  // bytes of receive buffers that replies may hold before copying
  // How long a connection that we closed may have output that its peer does not take: since the
  // last bytes that it took. Then it ends with timed_out. Longer than a stall on a bad network,
  // short enough that clients which never read do not pile up.
  Duration flush = std::chrono::seconds(30);
  // How long a connection that we closed and flushed waits for the peer's FIN, reading and
  // discarding. Closing with unread input would send RST and could destroy replies in flight (RFC
  // 9112, 9.6).
  Duration linger = std::chrono::seconds(2);
};

struct Options {
  std::string host = "127.0.0.1";  // numeric IPv4 or IPv6 address
  std::uint16_t port = 0;          // 0: the kernel chooses
  unsigned threads = 1;            // loops, by SO_REUSEPORT; models without loops ignore it
  Limits limits;
  // Called whenever a connection is refused at a limit, by the thread that refuses it. Must neither
  // block nor throw.
  std::function<void()> on_refused;
};

class Backend : public Poster {
 public:
  [[nodiscard]] virtual std::uint16_t port() const noexcept = 0;  // bound in the constructor
  // Serves until stop() has drained. Called once; throws std::system_error if it cannot start.
  virtual void run(Service&) = 0;
  // Stops accepting, tells every session to drain, cuts off what is left after grace. Any thread,
  // also before run; the first call counts.
  virtual void stop(Duration grace) noexcept = 0;
  [[nodiscard]] virtual Stats stats() const = 0;  // any thread
};

// A backend and how it is tuned, as users type it: "epoll", "epoll:lt", "threads:pool=16".
struct Spec {
  std::string model;    // threads, epoll, io_uring or libuv
  std::string variant;  // empty for the default
  unsigned value = 0;   // threads:pool=N
  [[nodiscard]] std::string name() const;
};

// One line of the catalogue. Where value_name is not empty, the variant takes "=N".
struct Variant {
  std::string name;
  std::string why;          // one line: what it shows
  std::string unavailable;  // one line: why it cannot run here; empty if it can
};

struct UnknownBackend : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};
struct BackendUnavailable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

std::vector<Variant> catalogue();   // probes this machine
Spec parse_spec(std::string_view);  // throws UnknownBackend, which lists the known ones
// Binds and listens. Throws BackendUnavailable, std::invalid_argument (no address), or
// std::system_error (port in use, no permission).
std::unique_ptr<Backend> make_backend(const Spec&, const Options&);

}  // namespace echolab
