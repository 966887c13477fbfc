// Calls to upstreams by a thread that waits for the answer: what the blocking models share.
//
// The socket itself does not block, the thread does, in poll(2): it waits for the upstream, for the
// deadline and for the end of the client for whom it asks, all at once, which no blocking recv(2)
// can.
#pragma once

#include <mutex>
#include <unordered_map>
#include <vector>

#include "backends/calls.hpp"
#include "backends/session.hpp"
#include "backends/sockets.hpp"
#include "backends/stats.hpp"

namespace echolab {

// What ends the calls of one connection early, and at once. Any thread.
class Cancellation {
 public:
  // Those under way, and all that are made later.
  void cancel() noexcept;

 private:
  friend class Upstreams;
  bool canceled();
  bool begin(int fd);  // false: do not
  bool end(int fd);    // false: it was canceled

  std::mutex mutex_;
  bool canceled_ = false;
  std::vector<int> under_way_;
};

// A call as the session asked for it. Its time runs from then on, also while it waits for a thread.
struct PendingCall {
  explicit PendingCall(Out::Call&& asked);
  Out::Call call;
  Time deadline;
};

struct Answer {
  CallId id = 0;
  std::error_code error;  // as in Reply, or operation_canceled: nobody waits for it any more
  std::vector<std::byte> bytes;
  bool reused = false;  // it came over a kept connection

  [[nodiscard]] Reply reply() const { return {id, error, bytes}; }
  void count(Counters& counters) const;  // when the session gets it
};

// Keeps the connections that nobody uses, most recently used first. Any thread; nothing is locked
// while a call waits.
//
// One that nobody has used for `idle_time` is not used again, as in the loops. No thread waits for
// that moment: it is closed when the next call to its upstream is made or ends.
class Upstreams {
 public:
  static constexpr int kNobody = -1;

  explicit Upstreams(Duration idle_time = Calls::kIdleTime) : idle_time_(idle_time) {}

  // Sends the request and waits for the whole reply. The call also ends with operation_canceled
  // when the connection `client` is gone, a descriptor that the caller keeps open, or kNobody. A
  // call over a kept connection that was lost before it answered is made once more over a new one.
  Answer call(const PendingCall& pending, int client, Cancellation& cancellation,
              Counters& counters);
  // Closes what is kept; no call is under way.
  void shut();

 private:
  class Exchange;
  Fd take(const Upstream& upstream, Counters& counters);
  void keep(const Upstream& upstream, Fd fd, Counters& counters);

  struct Idle {
    Fd fd;
    Time since;
  };
  // With the lock held: those that have been idle for too long.
  void expire(std::vector<Idle>& idle, Counters& counters) const;

  const Duration idle_time_;
  std::mutex mutex_;
  std::unordered_map<const Upstream*, std::vector<Idle>> idle_;  // the oldest first
};

}  // namespace echolab
