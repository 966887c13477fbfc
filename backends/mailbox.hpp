// Posts on their way to one loop. Any thread pushes, the loop takes.
#pragma once

#include <atomic>
#include <mutex>
#include <utility>
#include <vector>

#include "backends/connections.hpp"
#include "backends/session.hpp"
#include "backends/stats.hpp"

namespace echolab {

class Mailbox {
 public:
  struct Item {
    std::vector<ConnId> to;
    Post post;
  };

  // Queues the ids of this shard. False: there were none.
  bool push(std::span<const ConnId> ids, std::uint16_t shard, const Post& post) {
    std::vector<ConnId> mine;
    for (const ConnId& id : ids) {
      if (id.shard == shard) mine.push_back(id);
    }
    if (mine.empty()) return false;
    const std::scoped_lock lock(mutex_);
    items_.push_back({std::move(mine), post});
    waiting_.store(true);
    return true;
  }
  // Asked after a push. True once per sleep: this caller, no other, must wake the loop.
  bool take_wake() { return asleep_.exchange(false); }

  // The loop is about to wait. False: there are posts, do not. Sleeping is announced before the
  // look, and pushing before take_wake, both sequentially consistent: one of the two sees the
  // other.
  bool sleep() {
    asleep_.store(true);
    if (!waiting_.load()) return true;
    asleep_.store(false);
    return false;
  }
  void awake() { asleep_.store(false, std::memory_order_relaxed); }

  // Takes all items, and calls f(connection, post) for each connection that still takes posts.
  template <class Connection, class F>
  void deliver(const Connections<Connection>& connections, Counters& counters, F&& f) {
    take(turn_);
    for (const Item& item : turn_) {
      for (const ConnId& id : item.to) {
        Connection* c = connections.find(id.slot, id.generation);
        const bool open = c != nullptr && !c->ended && !c->closing;
        counters.add(open ? Count::posts : Count::posts_stale);
        if (open) f(*c, item.post);
      }
    }
  }
  // Takes all items. `into` comes back empty if there were none.
  void take(std::vector<Item>& into) {
    into.clear();
    if (!waiting_.load(std::memory_order_relaxed)) return;
    const std::scoped_lock lock(mutex_);
    into.swap(items_);
    waiting_.store(false);
  }

 private:
  std::mutex mutex_;
  std::vector<Item> items_;
  std::vector<Item> turn_;  // items_ while they are delivered; the loop's
  std::atomic<bool> waiting_ = false;
  std::atomic<bool> asleep_ = false;
};

}  // namespace echolab
