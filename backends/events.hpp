// Callbacks of one session that wait for a thread to run them, and what came of them.
#pragma once

#include <memory>
#include <vector>

#include "backends/chunks.hpp"
#include "backends/session.hpp"
#include "backends/upstreams.hpp"

namespace echolab {

struct Event {
  enum class Kind : std::uint8_t { none, open, bytes, eof, post, reply, deadline, room, drain };
  Kind kind = Kind::none;
  std::uint32_t chunk = Chunks::kNone;  // what input lies in
  Input input;
  Pin pin;  // on that chunk
  Post post;
  std::unique_ptr<const Answer> answer;
  bool called = false;
  Out out;

  Event& begin(Kind what) {
    kind = what;
    chunk = Chunks::kNone;
    called = false;
    return *this;
  }
  // `queued` is what waits to be sent. Not called for room that has been filled meanwhile: more
  // than low_water bytes.
  void call(Session& session, ConnId id, Time now, std::size_t queued, std::size_t low_water) {
    if (kind == Kind::room && queued > low_water) return;
    called = true;
    out.set_queued(queued);
    switch (kind) {
      case Kind::none:
        return;
      case Kind::open:
        return session.on_open(out, id, now);
      case Kind::bytes:
        return session.on_bytes(out, input, now);
      case Kind::eof:
        return session.on_eof(out, now);
      case Kind::post:
        return session.on_post(out, post, now);
      case Kind::reply:
        return session.on_reply(out, answer->reply(), now);
      case Kind::deadline:
        return session.on_deadline(out, now);
      case Kind::room:
        return session.on_room(out, now);
      case Kind::drain:
        return session.on_drain(out, now);
    }
  }
  // What came of it.
  void count(Counters& counters) const {
    if (kind == Kind::post) {
      counters.add(called ? Count::posts : Count::posts_stale);
    } else if (kind == Kind::deadline && called) {
      counters.add(Count::deadlines);
    } else if (kind == Kind::reply && called) {
      answer->count(counters);
    }
  }
  void clear() {
    kind = Kind::none;
    out.clear();
    pin = Pin();
    post = Post();
    answer.reset();
  }
};

// In order. Keeps its elements' memory when it is emptied. Not thread-safe.
class Events {
 public:
  Event& add(Event::Kind kind) {
    if (size_ == events_.size()) events_.emplace_back();
    return events_[size_++].begin(kind);
  }
  // Calls one after the other, until one closes the session. A deadline that an earlier one
  // replaced is left out. What they write comes behind the `queued` bytes.
  void call(Session& session, ConnId id, Time now, std::size_t queued, std::size_t low_water) {
    bool replaced = false;
    for (Event& e : *this) {
      if (e.kind == Event::Kind::deadline && replaced) continue;
      e.call(session, id, now, queued, low_water);
      queued += e.out.total();
      if (e.out.closing()) return;
      replaced = replaced || e.out.deadline().has_value();
    }
  }
  // The session has set a new deadline: the one that it replaces may have fired already.
  void forget_deadlines() {
    for (Event& e : *this) {
      if (e.kind == Event::Kind::deadline) e.kind = Event::Kind::none;
    }
  }
  void count(Counters& counters) const {
    for (std::size_t i = 0; i < size_; ++i) events_[i].count(counters);
  }
  void clear() {
    for (Event& e : *this) e.clear();
    size_ = 0;
  }
  void swap(Events& other) noexcept {
    events_.swap(other.events_);
    std::swap(size_, other.size_);
  }

  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] bool unused() const { return events_.empty(); }  // holds no memory
  Event* begin() { return events_.data(); }
  Event* end() { return events_.data() + size_; }

 private:
  std::vector<Event> events_;
  std::size_t size_ = 0;
};

}  // namespace echolab
