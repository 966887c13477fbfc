// One blocking connection that two threads serve: the price that this model pays when the server
// has something to say, because a thread that is blocked in recv(2) can do nothing else. One reads,
// the other waits on a condition variable and does the rest: posts, deadlines, drain, and all
// sending, outside of the locks. When the kernel takes no more it waits in ppoll(2), where a signal
// reaches it: a client that does not read must not keep posts from its session.
#pragma once

#include <pthread.h>

#include <condition_variable>
#include <mutex>
#include <vector>

#include "backends/backend.hpp"
#include "backends/blocking.hpp"
#include "backends/outbox.hpp"
#include "backends/upstreams.hpp"

namespace echolab {

class Duplex {
 public:
  // All of them outlive it.
  Duplex(const Fd& fd, ConnId id, Session& session, const Limits& limits, Upstreams& upstreams)
      : fd_(fd), id_(id), session_(session), limits_(limits), upstreams_(upstreams) {}

  // On the connection's own thread, which becomes the one that reads. Returns when the connection
  // has ended, with the error for on_close; the descriptor is still open, so that a reset can be
  // had from it if that is connection_aborted.
  std::error_code serve();

  // Any thread, at any time.
  enum class Posted { queued, stale, overflow };
  Posted post(const Post&);
  void drain();
  void cut();  // the grace period is over
  void add_to(Stats&) const;

 private:
  // What each of the two threads has of its own.
  struct Side {
    Out out;
    std::vector<PendingCall> calls;  // asked for in its callbacks
    Counters counters;
    std::condition_variable wake;
    bool done = false;  // under lock_
  };

  template <class Ready, class Callback>
  bool call_session(Side& side, Ready&& ready, Callback&& callback);
  template <class Callback>
  bool call_session(Side& side, Callback&& callback) {
    return call_session(
        side, [] { return true; }, callback);
  }
  void absorb(Side& side);
  void fail(std::error_code error);
  void overflow(Counters& counters);
  void wake_writer();
  void ask(Side& side);
  void read_loop();
  bool await_room();
  bool receive(Input buffer);
  void write_loop();
  void await_work(std::unique_lock<std::mutex>& lock);
  void send();
  void finish();
  void leave(Side& own, Side& other, pthread_t thread);

  [[nodiscard]] bool due() const { return deadline_ != kNever && now() >= deadline_; }
  [[nodiscard]] bool draining() const { return draining_ && !drained_; }
  [[nodiscard]] bool room() const { return awaits_room_ && outbox_.size() <= limits_.low_water; }

  const Fd& fd_;
  const ConnId id_;
  Session& session_;
  const Limits& limits_;
  Upstreams& upstreams_;
  Cancellation cancellation_;
  Side reader_;
  Side writer_;
  bool full_ = false;         // the kernel takes no more; the writer's own
  sigset_t uninterrupted_{};  // the signal mask with which the writer was started

  std::mutex session_lock_;  // held during callbacks, taken before lock_
  std::mutex lock_;          // guards the rest
  Outbox outbox_;
  std::vector<Post> inbox_;
  std::size_t inbox_bytes_ = 0;
  Time deadline_ = kNever;
  Time flushed_by_ = kNever;  // if closing: the peer must take more by then
  std::error_code error_;
  bool awaits_room_ = false;
  bool closing_ = false;  // the session has closed; input is discarded
  bool blocked_ = false;  // the writer waits for the kernel to take more; writer_thread_ is set
  pthread_t writer_thread_{};
  bool aborted_ = false;   // error_ says so too
  bool draining_ = false;  // on_drain is due
  bool drained_ = false;   // and has been called
  bool fin_sent_ = false;
  bool cut_ = false;
};

}  // namespace echolab
