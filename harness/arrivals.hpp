// When requests of an open loop are due, and on which connection: times that do not depend on the
// server. O(1) a request.
//
// Poisson: gaps are exponential at the total rate and the connection is drawn uniformly. That is
// the same process as an independent Poisson process on every connection (superposition), without
// a queue of them.
// Constant: every connection has the period connections/rate and a random phase. The phases are
// sorted once; as all periods are equal, the same order repeats for ever.
//
// The schedule runs in a time of its own that stands still between slices, so that short slices
// together see what one long run would see.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "harness/load.hpp"
#include "harness/pattern.hpp"

namespace echolab::harness {

class Schedule {
 public:
  Schedule(const Shape& shape, std::uint64_t seed)
      : poisson_(shape.arrivals == Arrivals::poisson),
        connections_(shape.connections),
        random_(Pattern::mix(seed)) {
    if (shape.rate <= 0) return;  // closed loop: never asked
    const double gap = 1e9 / shape.rate;
    if (poisson_) {
      mean_gap_ = gap;
    } else {
      period_ = gap * connections_;
      phases_.reserve(connections_);
      for (std::uint32_t i = 0; i < connections_; ++i) {
        phases_.emplace_back(uniform() * period_, i);
      }
      std::sort(phases_.begin(), phases_.end());
    }
    step();
  }

  // A slice begins, or has ended, at `now` (ns of the steady clock).
  void start(std::uint64_t now) { origin_ = now; }
  void stop(std::uint64_t now) { passed_ += static_cast<double>(now - origin_); }

  // The next request: due at (ns of the steady clock), on connection.
  [[nodiscard]] std::uint64_t due() const {
    const double ahead = next_ - passed_;
    return origin_ + (ahead > 0 ? static_cast<std::uint64_t>(ahead) : 0);
  }
  [[nodiscard]] std::uint32_t connection() const { return connection_; }
  void step() {
    if (poisson_) {
      next_ += -std::log1p(-uniform()) * mean_gap_;
      connection_ = static_cast<std::uint32_t>((random() >> 32) * connections_ >> 32);
      return;
    }
    next_ = cycle_ * period_ + phases_[position_].first;
    connection_ = phases_[position_].second;
    if (++position_ == phases_.size()) {
      position_ = 0;
      ++cycle_;
    }
  }

 private:
  std::uint64_t random() { return Pattern::mix(random_ += 0x9e3779b97f4a7c15ULL); }
  double uniform() { return static_cast<double>(random() >> 11) * 0x1p-53; }  // [0, 1)

  bool poisson_;
  std::uint64_t connections_;
  std::uint64_t random_;
  double mean_gap_ = 0;                                   // ns, Poisson
  double period_ = 0;                                     // ns, constant
  std::vector<std::pair<double, std::uint32_t>> phases_;  // ns and connection, constant
  std::size_t position_ = 0;
  double cycle_ = 0;
  double next_ = 0;    // ns of schedule time
  double passed_ = 0;  // ns of schedule time that earlier slices used up
  std::uint64_t origin_ = 0;
  std::uint32_t connection_ = 0;
};

}  // namespace echolab::harness
