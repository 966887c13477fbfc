// Clients of the patterns' benchmark: one that asks and waits, and many that are told. Loopback,
// one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "harness/files.hpp"

namespace echolab::harness {

// A server did not do what it must. what() is one line.
struct PatternError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// How long a server may take for anything: much longer than it needs on a loaded machine.
inline constexpr std::chrono::seconds kPatience{30};

// A kept connection for one request at a time.
class Asker {
 public:
  explicit Asker(std::uint16_t port);
  void send(std::string_view bytes);
  // A response with Content-Length, head and body.
  std::string ask(std::string_view request);
  std::string receive(std::size_t bytes);

 private:
  void more(std::string& text);
  Descriptor fd_;
};
// The body of an answer; throws PatternError if its status is not 200.
std::string body_of(std::string_view answer);

// Many connections that have sent the same request. Closed by a reset, so that thousands of them
// leave no local port behind in TIME_WAIT.
class Subscribers {
 public:
  // `ready` says whether what one has received so far is all of a good beginning; what it throws
  // comes out. Returns when all have it, and forgets it.
  using Ready = std::function<bool(std::string_view received)>;
  Subscribers(std::uint16_t port, unsigned count, const std::string& request, const Ready& ready);
  Subscribers(const Subscribers&) = delete;
  Subscribers& operator=(const Subscribers&) = delete;
  ~Subscribers();

  // Until each has got the message, which must come in one piece, as short ones do. Does not wait
  // in the kernel and reads nothing before all is there, so that a sender neither pays for waking
  // this thread nor meets it at a lock. Throws PatternError if one ends, hears anything else, or
  // patience does.
  void expect(std::string_view message);
  [[nodiscard]] std::size_t size() const { return clients_.size(); }

 private:
  struct Client {
    Descriptor fd;
    std::string received;
    bool ready = false;
  };

  std::vector<Client> clients_;
  Descriptor epoll_;
};

}  // namespace echolab::harness
