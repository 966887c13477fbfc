#include "harness/cpu_ticks.hpp"

#include <algorithm>
#include <charconv>
#include <string_view>
#include <utility>

namespace echolab::harness {
namespace {

// The lines of the CPUs come first and take at most about 100 bytes each; what follows (a figure
// for every interrupt) is neither needed nor read.
constexpr std::size_t kBytesPerCpu = 128;
// Of a CPU's line, from 1: user nice system idle iowait irq softirq steal
constexpr int kIdleField = 4, kIoWaitField = 5, kStealField = 8;

// The number at `text`, which it moves beyond it; -1 at the end of the line.
long long next_number(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  long long value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return error == std::errc() ? value : -1;
}

}  // namespace

CpuTicks::CpuTicks(std::vector<int> cpus)
    : cpus_(std::move(cpus)),
      tick_ns_(1'000'000'000ULL / static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK))),
      file_(::open("/proc/stat", O_RDONLY | O_CLOEXEC)) {
  const int last = cpus_.empty() ? 0 : *std::max_element(cpus_.begin(), cpus_.end());
  text_.resize((static_cast<std::size_t>(last) + 2) * kBytesPerCpu);
}

Ticks CpuTicks::read() {
  if (!file_) return {};
  const ssize_t n = ::pread(file_.get(), text_.data(), text_.size(), 0);
  if (n <= 0) return {};
  std::string_view text(text_.data(), static_cast<std::size_t>(n));
  Ticks sum;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (!line.starts_with("cpu") || line.starts_with("cpu ")) continue;
    line.remove_prefix(3);
    const long long cpu = next_number(line);
    if (std::find(cpus_.begin(), cpus_.end(), cpu) == cpus_.end()) continue;
    for (int field = 1; field <= kStealField; ++field) {
      const auto value = static_cast<std::uint64_t>(std::max(next_number(line), 0LL));
      if (field == kIdleField || field == kIoWaitField) sum.idle += value;
      if (field == kStealField) sum.steal += value;
    }
  }
  return sum;
}

}  // namespace echolab::harness
