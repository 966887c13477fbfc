// CPU time that nobody used, or that the hypervisor gave to others, in the ticks in which the
// kernel shows it (proc(5), /proc/stat, the fourth, fifth and eighth figure of a CPU's line). Cheap
// enough to read between any two slices.
#pragma once

#include <cstdint>
#include <vector>

#include "harness/files.hpp"

namespace echolab::harness {

struct Ticks {
  std::uint64_t idle = 0;   // waiting for I/O included
  std::uint64_t steal = 0;  // 0 where it is not accounted
};

class CpuTicks {
 public:
  explicit CpuTicks(std::vector<int> cpus);
  // The sums over the CPUs since boot.
  [[nodiscard]] Ticks read();
  [[nodiscard]] std::uint64_t tick_ns() const { return tick_ns_; }
  [[nodiscard]] std::size_t cpus() const { return cpus_.size(); }

 private:
  std::vector<int> cpus_;
  std::uint64_t tick_ns_;
  Descriptor file_;
  std::vector<char> text_;
};

}  // namespace echolab::harness
