// Numbers for posts that answer a session's own question. One source for all features, so that an
// answer that comes late is never taken for the answer to a later question on the same connection.
#pragma once

#include <atomic>
#include <cstdint>

#include "patterns/hub.hpp"

namespace echolab::patterns {

class Tickets {
 public:
  // Any thread. Never the same twice.
  std::uint64_t take() { return Hub::kTicket | next_.fetch_add(1, std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> next_{1};
};

}  // namespace echolab::patterns
