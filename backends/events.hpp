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

  void call(Session& session, ConnId id, Time now) {
    called = true;
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
};

// In order. Keeps its elements' memory when it is emptied. Not thread-safe.
class Events {
 public:
  Event& add(Event::Kind kind) {
    if (size_ == events_.size()) events_.emplace_back();
    Event& e = events_[size_++];
    e.kind = kind;
    e.chunk = Chunks::kNone;
    e.called = false;
    return e;
  }
  // Calls one after the other, until one closes the session. A deadline that an earlier one
  // replaced is left out, and room that an earlier one has filled: more than low_water bytes.
  // `queued` is what waits to be sent; what they write comes behind it.
  void call(Session& session, ConnId id, Time now, std::size_t queued, std::size_t low_water) {
    bool replaced = false;
    for (Event& e : *this) {
      if (e.kind == Event::Kind::deadline && replaced) continue;
      if (e.kind == Event::Kind::room && queued > low_water) continue;
      e.out.set_queued(queued);
      e.call(session, id, now);
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
  // What came of them, when they have been called.
  void count(Counters& counters) const {
    for (std::size_t i = 0; i < size_; ++i) {
      const Event& e = events_[i];
      if (e.kind == Event::Kind::post) {
        counters.add(e.called ? Count::posts : Count::posts_stale);
      } else if (e.kind == Event::Kind::deadline && e.called) {
        counters.add(Count::deadlines);
      } else if (e.kind == Event::Kind::reply && e.called) {
        e.answer->count(counters);
      }
    }
  }
  void clear() {
    for (Event& e : *this) {
      e.out.clear();
      e.pin = Pin();
      e.post = Post();
      e.answer.reset();
    }
    size_ = 0;
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
