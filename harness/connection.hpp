// One connection of the load generator: where its two streams of bytes stand, and when its requests
// were due and sent. Internal to load.cpp and load_setup.cpp.
//
// A stream is a row of messages of one size, so a place in it is (message, offset). Received is
// never beyond sent, sent never beyond `goal`, the number of requests that are allowed so far.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "harness/files.hpp"

namespace echolab::harness {

struct Times {
  std::uint64_t due;   // ns of the steady clock; closed loop: as sent
  std::uint64_t sent;  // before the send that took the first byte
};

// The times of the requests that are not answered yet, by request number. Grows when needed: most
// connections never get near a large depth.
class TimeRing {
 public:
  Times& operator[](std::uint64_t request) { return times_[request & (times_.size() - 1)]; }
  // Makes room for `request`, the oldest unanswered one being `oldest`.
  void admit(std::uint64_t request, std::uint64_t oldest) {
    if (request - oldest < times_.size()) return;
    std::vector<Times> larger(times_.empty() ? 1 : times_.size() * 2);
    for (std::uint64_t r = oldest; r < request; ++r) larger[r & (larger.size() - 1)] = (*this)[r];
    times_.swap(larger);
  }

 private:
  std::vector<Times> times_;  // its size is a power of two, or zero
};

struct Connection {
  Descriptor fd;
  std::uint64_t goal = 0;  // requests that may be sent, ever
  std::uint64_t tx = 0;    // the next byte to send
  std::size_t tx_offset = 0;
  std::uint64_t rx = 0;  // the next byte to receive
  std::size_t rx_offset = 0;
  TimeRing times;        // of requests rx to goal - 1
  bool blocked = false;  // a send was short: an edge of EPOLLOUT ends it
  bool has_due = false;  // open loop: in the list of connections to send on

  // Requests of which at least a byte was sent.
  [[nodiscard]] std::uint64_t begun() const { return tx + (tx_offset > 0 ? 1 : 0); }
};

}  // namespace echolab::harness
