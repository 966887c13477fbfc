// The connections of one loop by slot. A slot is reused, most recent first, so that memory stays
// hot; its generation grows with every use, so that whoever held the old id finds nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "backends/session.hpp"

namespace echolab {

template <class Connection>
class Connections {
 public:
  // The new connection has its id set. Pointers stay valid until remove().
  Connection& add(std::uint16_t shard) {
    std::uint32_t slot = 0;
    if (free_.empty()) {
      slot = static_cast<std::uint32_t>(slots_.size());
      slots_.emplace_back();
    } else {
      slot = free_.back();
      free_.pop_back();
    }
    Slot& s = slots_[slot];
    s.connection = std::make_unique<Connection>();
    s.connection->id = {slot, ++s.generation, shard};
    ++size_;
    return *s.connection;
  }

  [[nodiscard]] Connection* find(std::uint32_t slot, std::uint32_t generation) const {
    if (slot >= slots_.size() || slots_[slot].generation != generation) return nullptr;
    return slots_[slot].connection.get();
  }
  // As find, where only some bits of the generation could be kept.
  [[nodiscard]] Connection* at_tag(std::uint32_t slot, std::uint32_t generation,
                                   std::uint32_t bits) const {
    if (slot >= slots_.size() || ((slots_[slot].generation ^ generation) & bits) != 0)
      return nullptr;
    return slots_[slot].connection.get();
  }
  [[nodiscard]] Connection* at(std::uint32_t slot) const { return slots_[slot].connection.get(); }

  void remove(std::uint32_t slot) {
    slots_[slot].connection.reset();
    free_.push_back(slot);
    --size_;
  }

  [[nodiscard]] std::size_t size() const { return size_; }

  // Calls f for each that exists when it is reached; f may remove and may not add.
  template <class F>
  void each(F&& f) {
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      if (slots_[i].connection) f(*slots_[i].connection);
    }
  }
  template <class F>
  void each(F&& f) const {
    for (const Slot& s : slots_) {
      if (s.connection) f(std::as_const(*s.connection));
    }
  }

 private:
  struct Slot {
    std::unique_ptr<Connection> connection;
    std::uint32_t generation = 0;
  };
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_;
  std::size_t size_ = 0;
};

}  // namespace echolab
