// CPU time that the hypervisor gave to others, in the ticks in which the kernel shows it (proc(5),
// /proc/stat, eighth figure of a CPU's line). Cheap enough to read between any two slices.
#pragma once

#include <cstdint>
#include <vector>

#include "harness/files.hpp"

namespace echolab::harness {

class StealTicks {
 public:
  explicit StealTicks(std::vector<int> cpus);
  // The sum over the CPUs since boot; 0 where it is not accounted.
  [[nodiscard]] std::uint64_t ticks();
  [[nodiscard]] std::uint64_t tick_ns() const { return tick_ns_; }
  [[nodiscard]] std::size_t cpus() const { return cpus_.size(); }

 private:
  std::vector<int> cpus_;
  std::uint64_t tick_ns_;
  Descriptor file_;
  std::vector<char> text_;
};

}  // namespace echolab::harness
