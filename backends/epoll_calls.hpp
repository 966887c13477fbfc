// The server as a caller, by readiness: a non-blocking socket in the loop's own epoll instance.
//
// A call over a kept connection costs a send and a recv; the wait is shared with all that the loop
// serves. A fresh connection costs socket, setsockopt, connect, epoll_ctl and getsockopt besides.
// Always edge-triggered, as nothing is gained by another way (backends/epoll.cpp).
#pragma once

#include <sys/epoll.h>

#include "backends/calls.hpp"

namespace echolab {

class EpollCalls final : public Calls {
 public:
  // Slots in event tags from here on are upstream connections.
  static constexpr std::uint32_t kFirstSlot = 1U << 31;

  EpollCalls(int epoll, Counters& counters, const Time& now)
      : Calls(counters, now, SOCK_NONBLOCK), epoll_(epoll) {}
  void handle(const epoll_event& event);

 private:
  void connect(Link& l) override;
  void request(Link& l) override;
  void watch(Link&) override {}  // it is registered already
  void close(Link& l) override;
  bool send(Link& l);
  void receive(Link& l);

  const int epoll_;
};

}  // namespace echolab
