#include "backends/stats.hpp"

namespace echolab {

const char* name_of(Count c) {
  static constexpr std::array<const char*, kCounts> names = {
#define X(name) #name,
      ECHOLAB_COUNTERS(X)
#undef X
  };
  return names[static_cast<std::size_t>(c)];
}

void Stats::add(const Counters& c) {
  for (std::size_t i = 0; i < kCounts; ++i) {
    counts[i] += c.values_[i].load(std::memory_order_relaxed);
  }
  for (std::size_t i = 0; i < kBatchBuckets; ++i) {
    batches[i] += c.batches_[i].load(std::memory_order_relaxed);
  }
}

}  // namespace echolab
