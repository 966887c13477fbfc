// The load generator: one thread, one epoll instance, any number of connections to one echo server,
// every byte of every reply verified. It speaks TCP only and shares no code with the servers.
//
// Closed loop: each connection keeps `depth` requests in flight. Open loop: requests are due at
// times that do not depend on the server; latency counts from the due time (so a stall is charged
// to every request that it delayed; Tene, "How NOT to measure latency"), with the latency from the
// actual send beside it.
#pragma once

#include <sys/socket.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>

#include "harness/histogram.hpp"

namespace echolab::harness {

using Clock = std::chrono::steady_clock;
using Nanos = std::chrono::nanoseconds;

struct Endpoint {
  sockaddr_storage address{};
  socklen_t length = 0;
  std::string text;  // as the user typed it
};
// "127.0.0.1:7000", "[::1]:7000", "localhost:7000"; of several addresses the first IPv4 one. Throws
// UsageError (a std::invalid_argument), one line.
Endpoint parse_endpoint(const std::string&);

enum class Arrivals { poisson, constant };

struct Shape {
  unsigned connections = 64;
  std::size_t size = 512;  // bytes per request, and so per reply; at least 1
  unsigned depth = 1;      // closed loop: requests in flight per connection
                           // open loop: the most that may be, more are skipped and counted
  double rate = 0;         // requests/s over all connections; 0: closed loop
  Arrivals arrivals = Arrivals::poisson;
};
inline constexpr unsigned kOpenLoopDepth = 1024;  // the default cap in open loop, requests

// Bounds of a shape, so that every run is bounded in memory and time.
inline constexpr unsigned kMaxConnections = 1'000'000;  // beyond any limit of descriptors or ports
inline constexpr unsigned kMaxDepth = 65'536;           // 16 bytes of bookkeeping a request
inline constexpr std::size_t kMaxSize = 1ULL << 30;     // bytes
inline constexpr double kMaxRate = 5e6;  // requests/s; one thread cannot keep count of more

// What the server did wrong, or what kept us from asking it. what() is one clear line.
struct LoadError : std::runtime_error {
  enum class Kind {
    connect,      // could not connect all
    mismatch,     // a reply byte differs: names connection, request, offset, expected and got
    extra,        // bytes that nobody asked for
    closed,       // end of file or reset with requests unanswered
    timeout,      // no byte for too long with requests unanswered
    limit,        // not enough descriptors or local ports
    interrupted,  // interrupt() before the load began
  };
  LoadError(Kind k, const std::string& line) : std::runtime_error(line), kind(k) {}
  Kind kind;
};

struct Slice {
  // Closed loop: first send to last reply. Open loop: start of the slice to its end or the last
  // reply, whichever is later; a Poisson process has no first request that one could start from.
  Nanos elapsed{};
  std::uint64_t requests = 0;  // completed and verified
  std::uint64_t skipped = 0;   // open loop: due with `depth` already in flight
  std::uint64_t due = 0;       // open loop: requests that became due in the slice
  Nanos client_cpu{};          // this thread's CPU time, user + system
  double inflight_mean = 0;    // time-average of requests in flight, counted on its own, so that
                               // Little's law can be checked against requests, elapsed and latency
};

// Clock reads: one after each recv and one before each send, however many requests these carry; a
// request's latency ends when the recv that brought its last byte has returned, and the raw one
// starts before the send that took its first byte.
class Load {
 public:
  // Nothing happens yet. `seed` drives arrival times and the pattern. Throws UsageError if the
  // shape is out of bounds.
  Load(Endpoint, Shape, std::uint64_t seed);
  ~Load();
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;

  // Connects all, or as many as are asked for (a later call goes on), and returns when every one of
  // them is established and has echoed a first byte, which proves that the server has accepted it:
  // no more than 64 connections at a time are in between, so that a short listen backlog is never
  // overrun. `timeout` is the longest time in which none gets ready. Throws LoadError. What follows
  // needs all.
  void connect(Nanos timeout, unsigned up_to = kMaxConnections);
  // One echo of odd sizes, split writes, on every connection (or the first `at_most`), all at once:
  // bytes are right before anything is timed. Throws LoadError.
  void verify(unsigned at_most);
  // Sends for `duration`, then waits for what is in flight: a slice starts and ends with nothing in
  // flight. Adds every latency to the histograms given (raw may be null; in closed loop both are
  // the same). In closed loop with more connections than one slice can serve, the next slice goes
  // on where this one stopped. Throws LoadError; what was completed before is in the histograms and
  // in partial(). After a LoadError, from any function, only partial() and the destructor may
  // follow.
  Slice run(Nanos duration, Histogram& latency, Histogram* raw);
  [[nodiscard]] const Slice& partial() const;
  // Connections that have carried a request of run().
  [[nodiscard]] std::size_t used() const;
  // The longest silence before a timeout error. 10 s unless set.
  void set_patience(Nanos);
  // Called from run(), four times a second, with the time since its start and what is completed.
  void set_progress(std::function<void(Nanos elapsed, std::uint64_t requests)>);
  // Asks run() to end early, in order, as if the duration were over; connect() and verify() throw
  // LoadError (interrupted). It stays asked until cleared. Async-signal-safe, any thread.
  static void interrupt() noexcept;
  static void clear_interrupt() noexcept;
  [[nodiscard]] static bool interrupted() noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace echolab::harness
