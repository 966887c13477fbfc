#include "tests/contract.hpp"

#include <algorithm>
#include <map>

namespace echolab::test {
namespace {

constexpr std::size_t kMostViolations = 20;  // more of them say nothing new

void count(Watch::Counter& counter) {
  counter.fetch_add(1, std::memory_order_relaxed);
}

class WatchedSession final : public Session {
 public:
  WatchedSession(std::unique_ptr<Session> inner, Watch& watch, bool real_time)
      : inner_(std::move(inner)), watch_(watch), real_time_(real_time) {
    count(watch_.accepted);
  }
  ~WatchedSession() override {
    if (!closed_) watch_.violation("a session was destroyed without on_close");
    inner_.reset();
    count(watch_.destroyed);
  }

  void on_open(Out& out, ConnId id, Time now) override {
    const Call call(*this, "on_open", out, now);
    if (opened_) watch_.violation("on_open came twice");
    opened_ = true;
    count(watch_.opened);
    inner_->on_open(out, id, now);
  }
  void on_bytes(Out& out, Input input, Time now) override {
    const Call call(*this, "on_bytes", out, now);
    if (input.empty()) watch_.violation("on_bytes came with no bytes");
    if (eof_) watch_.violation("on_bytes came after on_eof");
    inner_->on_bytes(out, input, now);
  }
  void on_eof(Out& out, Time now) override {
    const Call call(*this, "on_eof", out, now);
    if (eof_) watch_.violation("on_eof came twice");
    eof_ = true;
    inner_->on_eof(out, now);
  }
  void on_post(Out& out, const Post& post, Time now) override {
    const Call call(*this, "on_post", out, now);
    count(watch_.posts);
    inner_->on_post(out, post, now);
  }
  void on_deadline(Out& out, Time now) override {
    const Call call(*this, "on_deadline", out, now);
    count(watch_.deadlines);
    if (deadline_ == kNever) watch_.violation("on_deadline came without a deadline");
    if (deadline_ != kNever && now < deadline_) watch_.violation("on_deadline came early");
    deadline_ = kNever;
    inner_->on_deadline(out, now);
  }
  void on_reply(Out& out, const Reply& reply, Time now) override {
    const Call call(*this, "on_reply", out, now);
    count(watch_.replies);
    const auto asked = unanswered_.find(reply.id);
    if (asked == unanswered_.end()) {
      watch_.violation("on_reply came for a call that is not unanswered");
    } else {
      if (reply.error && !reply.bytes.empty()) watch_.violation("on_reply: an error, and bytes");
      if (!reply.error && reply.bytes.size() != asked->second) {
        watch_.violation("on_reply: not as many bytes as were asked for");
      }
      unanswered_.erase(asked);
    }
    inner_->on_reply(out, reply, now);
  }
  void on_room(Out& out, Time now) override {
    const Call call(*this, "on_room", out, now);
    count(watch_.rooms);
    if (!awaits_room_) watch_.violation("on_room came and nobody waited for it");
    awaits_room_ = false;
    inner_->on_room(out, now);
  }
  void on_drain(Out& out, Time now) override {
    const Call call(*this, "on_drain", out, now);
    if (drained_) watch_.violation("on_drain came twice");
    drained_ = true;
    inner_->on_drain(out, now);
  }
  void on_close(std::error_code error) noexcept override {
    if (busy_.test_and_set(std::memory_order_relaxed)) watch_.violation("on_close overlaps");
    if (!opened_) watch_.violation("on_close came without on_open");
    if (closed_) watch_.violation("on_close came twice");
    closed_ = true;
    if (aborting_ != (error == std::errc::connection_aborted)) {
      watch_.violation("on_close says " + error.message() + (aborting_ ? " after abort()" : ""));
    }
    inner_->on_close(error);
    if (error) count(watch_.failed);
    count(watch_.closed);
    busy_.clear(std::memory_order_relaxed);
  }

 private:
  // One callback, from entry to return.
  struct Call {
    Call(WatchedSession& s, const std::string& name, Out& o, Time now) : session(s), out(o) {
      if (s.busy_.test_and_set(std::memory_order_relaxed)) s.watch_.violation(name + " overlaps");
      if (!out.empty()) s.watch_.violation(name + " came with effects of another callback");
      if (name != "on_open" && !s.opened_) s.watch_.violation(name + " came before on_open");
      if (s.closing_) s.watch_.violation(name + " came after close()");
      if (s.closed_) s.watch_.violation(name + " came after on_close");
      if (out.queued() > s.written_) s.watch_.violation(name + ": more queued than was written");
      if (now < s.last_) s.watch_.violation(name + ": time went backwards");
      if (s.real_time_ && now > std::chrono::steady_clock::now()) {
        s.watch_.violation(name + ": a time in the future");
      }
      s.last_ = std::max(s.last_, now);
    }
    ~Call() {
      if (out.deadline()) session.deadline_ = *out.deadline();
      if (out.closing()) session.closing_ = true;
      if (out.aborting()) session.aborting_ = true;
      if (out.awaits_room()) session.awaits_room_ = true;
      for (const Out::Call& call : out.calls()) {
        session.unanswered_[call.id] = call.reply_size;
      }
      session.written_ += out.total();
      session.busy_.clear(std::memory_order_relaxed);
    }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    WatchedSession& session;
    Out& out;
  };

  std::unique_ptr<Session> inner_;
  Watch& watch_;
  // Relaxed on purpose: it orders nothing, so ThreadSanitizer still sees calls that a backend does
  // not order.
  std::atomic_flag busy_;
  bool real_time_;
  bool opened_ = false;
  bool eof_ = false;
  bool drained_ = false;
  bool closing_ = false;
  bool aborting_ = false;
  bool awaits_room_ = false;
  bool closed_ = false;
  std::size_t written_ = 0;                   // bytes in all
  std::map<CallId, std::size_t> unanswered_;  // and how large the answer is to be
  Time last_ = Time::min();
  Time deadline_ = kNever;
};

}  // namespace

void Watch::violation(const std::string& what) {
  const std::scoped_lock lock(mutex_);
  if (violations_.size() < kMostViolations) violations_.push_back(what);
}

std::vector<std::string> Watch::violations() const {
  const std::scoped_lock lock(mutex_);
  return violations_;
}

std::unique_ptr<Session> WatchedService::accept() {
  return std::make_unique<WatchedSession>(inner_->accept(), watch_, real_time_);
}

}  // namespace echolab::test
