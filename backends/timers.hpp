// One deadline per connection slot: a binary heap that knows where each slot is, so that a deadline
// that moves with every request costs O(log n) and never leaves stale entries behind.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "backends/session.hpp"

namespace echolab {

class Timers {
 public:
  // kNever removes.
  void set(std::uint32_t slot, Time when) {
    if (slot >= where_.size()) {
      if (when == kNever) return;
      where_.resize(slot + 1, kAbsent);
    }
    std::uint32_t at = where_[slot];
    if (when == kNever) {
      if (at != kAbsent) remove(at);
      return;
    }
    if (at == kAbsent) {
      at = static_cast<std::uint32_t>(heap_.size());
      heap_.push_back({when, slot});
      where_[slot] = at;
    } else {
      heap_[at].when = when;
    }
    down(up(at));
  }

  [[nodiscard]] Time next() const { return heap_.empty() ? kNever : heap_.front().when; }

  // Removes and names the earliest slot that is due, in order of time.
  bool pop(Time now, std::uint32_t& slot) {
    if (heap_.empty() || heap_.front().when > now) return false;
    slot = heap_.front().slot;
    remove(0);
    return true;
  }

 private:
  static constexpr std::uint32_t kAbsent = UINT32_MAX;
  struct Entry {
    Time when;
    std::uint32_t slot;
  };

  void place(std::uint32_t at, Entry e) {
    heap_[at] = e;
    where_[e.slot] = at;
  }
  std::uint32_t up(std::uint32_t at) {
    const Entry e = heap_[at];
    for (; at > 0 && e.when < heap_[(at - 1) / 2].when; at = (at - 1) / 2) {
      place(at, heap_[(at - 1) / 2]);
    }
    place(at, e);
    return at;
  }
  void down(std::uint32_t at) {
    const Entry e = heap_[at];
    for (;;) {
      std::uint32_t child = 2 * at + 1;
      if (child >= heap_.size()) break;
      if (child + 1 < heap_.size() && heap_[child + 1].when < heap_[child].when) ++child;
      if (!(heap_[child].when < e.when)) break;
      place(at, heap_[child]);
      at = child;
    }
    place(at, e);
  }
  void remove(std::uint32_t at) {
    where_[heap_[at].slot] = kAbsent;
    const Entry last = heap_.back();
    heap_.pop_back();
    if (at < heap_.size()) {
      place(at, last);
      down(up(at));
    }
  }

  std::vector<Entry> heap_;
  std::vector<std::uint32_t> where_;  // slot -> index in heap_
};

}  // namespace echolab
