// The calls of one loop's sessions to upstreams: which connection carries which call, how long it
// may take, what is tried again, what is kept. How the kernel is asked is left to EpollCalls and
// UringCalls.
//
// A connection carries one call at a time. When the reply is whole and nothing else has come, it is
// kept for the next call to that upstream, the one used last first. The peer may close a kept
// connection at any moment: a call that then fails before any byte of its reply came is made once
// more, over a fresh connection.
//
// One thread.
#pragma once

#include <cstddef>
#include <unordered_map>
#include <vector>

#include "backends/connections.hpp"
#include "backends/session.hpp"
#include "backends/sockets.hpp"
#include "backends/stats.hpp"
#include "backends/timers.hpp"

namespace echolab {

class Calls {
 public:
  static constexpr std::size_t kIdle = 64;  // connections kept per upstream and loop
  // Less than the minute after which servers usually close an idle connection, so that the two
  // seldom cross.
  static constexpr Duration kIdleTime = std::chrono::seconds(30);

  // `now` is the loop's clock. Both outlive this. Sockets are made with these flags of socket(2).
  Calls(Counters& counters, const Time& now, int socket_flags)
      : counters_(counters), now_(now), socket_flags_(socket_flags) {}
  Calls(const Calls&) = delete;
  Calls& operator=(const Calls&) = delete;
  virtual ~Calls() = default;

  // Takes over the calls of one callback, and returns their number. The answers come by deliver(),
  // never from within.
  unsigned start(ConnId caller, std::vector<Out::Call>& calls);
  // The caller is gone or closing: its calls are dropped and their connections closed.
  void cancel(ConnId caller);
  // When deliver() has something to do: now, if there are answers.
  [[nodiscard]] Time next() const { return answers_.empty() ? timers_.next() : now_; }
  // Ends what has taken too long, and calls f(connection, reply) for each answer whose caller is
  // there to have it. A Connection has the flags ended and closing, and counts unanswered calls.
  template <class Connection, class F>
  void deliver(const Connections<Connection>& connections, F&& f) {
    expire();
    if (answers_.empty()) return;
    turn_.swap(answers_);
    for (const Answer& a : turn_) {
      Connection* c = connections.find(a.caller.slot, a.caller.generation);
      if (c == nullptr || c->ended || c->closing) continue;
      --c->calls;
      counters_.add(Count::calls);
      if (a.error) counters_.add(Count::calls_failed);
      if (a.reused) counters_.add(Count::calls_reused);
      f(*c, Reply{a.id, a.error, a.bytes});
    }
    turn_.clear();
  }
  // Closes what is kept; the callers are gone. size(): connections that are not closed yet.
  void shut();
  [[nodiscard]] std::size_t size() const { return links_.size(); }

 protected:
  struct Call {
    ConnId caller;
    Time deadline{};
    Out::Call asked;
  };
  // A connection to an upstream.
  struct Link {
    ConnId id;
    Fd fd;
    Address address;
    const Upstream* upstream = nullptr;
    Call call;
    std::vector<std::byte> reply;  // one byte longer than it should get, to see if more comes
    std::size_t sent = 0;          // bytes of the request
    std::size_t received = 0;      // bytes of the reply
    bool busy = false;             // has a call
    bool reused = false;           // has had another
    bool closing = false;          // dropped; the kernel may still be at work on it
    // Requests that the kernel holds, where it holds any.
    bool connecting = false;
    bool sending = false;
    bool silent = false;  // the send in flight reports only failure
    bool receiving = false;
    bool watching = false;
    bool outdated = false;  // it watches since before this call
    unsigned in_flight = 0;
  };

  // Asked of the mechanism. The first two end in an advance(), or in failed(); a link is not to be
  // used after failed(), advance() or drop().
  virtual void connect(Link& l) = 0;  // and then request()
  virtual void request(Link& l) = 0;  // sends the request and awaits the reply
  virtual void watch(Link& l) = 0;    // idle: whatever comes, an end or bytes, is to drop it
  virtual void close(Link& l) = 0;    // and remove, once the kernel is done with it

  // Told by the mechanism: something was sent or received. True: it was the last, and the link has
  // been dropped or kept.
  bool advance(Link& l);
  void failed(Link& l, std::error_code error);
  void drop(Link& l);

  Counters& counters_;
  const Time& now_;
  Connections<Link> links_;

 private:
  struct Answer {
    ConnId caller;
    CallId id = 0;
    std::error_code error;
    std::vector<std::byte> bytes;
    bool reused = false;  // over a connection that had carried another call
  };
  void start(Call&& call);
  void expire();
  void begin(Link& l, Call&& call);
  void fresh(Call&& call);
  void answer(const Call& call, std::error_code error, std::vector<std::byte>&& bytes, bool reused);

  const int socket_flags_;
  Timers timers_;  // of a busy link its call's deadline, of an idle one its end
  std::unordered_map<const Upstream*, std::vector<std::uint32_t>> idle_;  // slots
  std::vector<Answer> answers_;
  std::vector<Answer> turn_;  // being delivered
};

}  // namespace echolab
