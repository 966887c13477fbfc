// The connections of one loop whose sessions have asked for room (Out::await_room) and have it.
// They are told at the end of the turn: never within the callback that asks, and once a turn, so
// that a session which always finds room does not keep the others waiting.
//
// A Connection has an id, an outbox, and the flags awaits_room, room_queued, closing and ended.
#pragma once

#include <cstddef>
#include <vector>

#include "backends/connections.hpp"
#include "backends/session.hpp"

namespace echolab {

template <class Connection>
class Rooms {
 public:
  explicit Rooms(std::size_t low_water) : low_water_(low_water) {}

  // To be called whenever a session has asked, or bytes of one that awaits room have been sent.
  void check(Connection& c) {
    if (!c.awaits_room || c.room_queued || c.closing || c.ended) return;
    if (c.outbox.size() > low_water_) return;
    c.room_queued = true;
    due_.push_back(c.id);
  }
  [[nodiscard]] bool empty() const { return due_.empty(); }
  // Calls f(connection) for each that still has room.
  template <class F>
  void deliver(const Connections<Connection>& connections, F&& f) {
    turn_.swap(due_);
    for (const ConnId& id : turn_) {
      Connection* c = connections.find(id.slot, id.generation);
      if (c == nullptr || c->ended || c->closing) continue;
      c->room_queued = false;
      if (c->outbox.size() > low_water_) continue;  // filled by another callback meanwhile
      c->awaits_room = false;
      f(*c);
    }
    turn_.clear();
  }

 private:
  const std::size_t low_water_;
  std::vector<ConnId> due_;
  std::vector<ConnId> turn_;
};

}  // namespace echolab
