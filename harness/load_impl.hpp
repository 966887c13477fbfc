// The state of the load generator, shared by load.cpp (slices) and load_setup.cpp (connect,
// verify).
#pragma once

#include <sys/epoll.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "harness/arrivals.hpp"
#include "harness/connection.hpp"
#include "harness/files.hpp"
#include "harness/histogram.hpp"
#include "harness/load.hpp"
#include "harness/pattern.hpp"

namespace echolab::harness {

// One recv takes the replies of a whole batch: 64 KiB messages at depth 4, and the same out.
inline constexpr std::size_t kBuffer = 256 * 1024;  // bytes
// Events taken at once. More would only make the last ones wait longer for the first.
inline constexpr int kEvents = 256;
// The longest sleep: how soon an interrupt from another thread is seen.
inline constexpr Nanos kNap = std::chrono::milliseconds(100);

inline std::uint64_t now_ns() {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<Nanos>(Clock::now().time_since_epoch()).count());
}

struct Load::Impl {
  Impl(Endpoint, const Shape&, std::uint64_t seed);

  // load_setup.cpp
  void connect(Nanos timeout, unsigned up_to);
  void verify(unsigned at_most);

  // load.cpp
  Slice run(Nanos duration, Histogram& latency, Histogram* raw);
  void begin(Nanos duration);
  void loop();
  void finish();
  void ramp();
  void issue_due();
  void stop_issuing();
  void allow(Connection&, std::uint64_t requests);
  int wait();
  int sleep(std::uint64_t ns);
  void handle(const epoll_event&);
  void send_answered();
  void receive(Connection&, bool to_the_end);
  void take(Connection&, std::size_t bytes);
  void send(Connection&);
  void advance(Connection&, std::size_t bytes);
  void at(std::uint64_t now);
  void check_silence();
  std::size_t receive_some(Connection&);
  std::size_t send_some(Connection&, std::size_t bytes);

  // Error lines.
  [[nodiscard]] std::string name(const Connection&) const;  // "127.0.0.1:7000, connection 3"
  [[nodiscard]] std::string state(const Connection&) const;
  [[nodiscard]] LoadError mismatch(const Connection&, const std::string& what, std::uint64_t key,
                                   std::size_t offset, std::byte got, std::size_t size) const;
  [[nodiscard]] LoadError extra(const Connection&, std::size_t bytes,
                                const std::string& when) const;
  [[nodiscard]] std::uint64_t key(const Connection& c, std::uint64_t sequence) const {
    return pattern.key(static_cast<std::uint64_t>(&c - connections.data()), sequence);
  }
  [[nodiscard]] bool open_loop() const { return shape.rate > 0; }

  const Endpoint endpoint;
  const Shape shape;
  const Pattern pattern;
  Schedule schedule;
  std::vector<Connection> connections;
  unsigned connected = 0;  // of them, from the first on
  Descriptor epoll;
  std::array<epoll_event, kEvents> events{};
  std::unique_ptr<std::byte[]> in = std::make_unique_for_overwrite<std::byte[]>(kBuffer);
  std::unique_ptr<std::byte[]> out = std::make_unique_for_overwrite<std::byte[]>(kBuffer);
  std::uint64_t patience;  // ns
  std::function<void(Nanos, std::uint64_t)> progress;
  // While connecting and verifying: how far a connection is, for an error line. Refers to what is
  // local there; after an error nothing asks for it.
  std::function<std::string(const Connection&)> setup_state;
  bool millisecond_sleeps = false;  // the kernel has no epoll_pwait2
  std::size_t ramp_next = 0;        // closed loop: the connection to start next, for ever

  // Of the slice.
  Slice slice;
  Histogram* latency = nullptr;
  Histogram* raw = nullptr;
  std::uint64_t started = 0;  // ns of the steady clock, as all that follow
  std::uint64_t end = 0;      // of issuing
  std::uint64_t now = 0;      // the last clock read
  std::uint64_t last_reply = 0;
  std::uint64_t silent_since = 0;  // the last byte received, or the send that ended an idle time
  std::uint64_t next_progress = 0;
  std::uint64_t cpu_started = 0;    // ns of the thread's CPU clock
  std::uint64_t inflight = 0;       // requests begun and not answered
  std::uint64_t queued = 0;         // requests allowed and not begun
  std::uint64_t inflight_area = 0;  // requests * ns
  std::size_t ramp_left = 0;        // connections that have not been started in this slice
  bool issuing = false;
  std::vector<Connection*> answered;  // of this batch of events: may have something to send
  std::vector<Connection*> due_now;   // open loop: connections to send on
};

}  // namespace echolab::harness
