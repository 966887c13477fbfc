#include "harness/gates.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "harness/ratio.hpp"

namespace echolab::harness {
namespace {

std::optional<double> delay_share(const SliceRow& row) {
  return ratio(as_double(row.client_delay_ns), as_double(row.elapsed_ns));
}

// Whether `busy` is judged by the CPU share (else by the client's run-queue delay). In an open loop
// on one CPU neither says anything: it idles between requests, and the client waits for the server.
bool by_cpu_share(const CellShape& shape, const Circumstances& with) {
  return with.shared_cpu && shape.rate == 0;
}
bool by_run_delay(const Circumstances& with) {
  return !with.shared_cpu;
}

std::optional<double> worst_of(const Result& result, Gate gate, const CellShape& shape,
                               const Circumstances& with) {
  const bool lower_is_worse =
      gate == Gate::achieved || (gate == Gate::busy && by_cpu_share(shape, with));
  std::optional<double> worst;
  for (const SliceRow& row : result.slices) {
    std::optional<double> value;
    if (gate == Gate::little) value = little_error(row);
    if (gate == Gate::client) value = client_busy(row, with.shared_cpu);
    if (gate == Gate::achieved) value = ratio(as_double(row.requests), as_double(row.due));
    if (gate == Gate::busy) value = lower_is_worse ? cpu_share(row, with) : delay_share(row);
    if (!value) continue;
    if (!worst || (lower_is_worse ? *value < *worst : *value > *worst)) worst = value;
  }
  return worst;
}

// What an idle or stolen time that is counted in ticks may be wrong by, as a share of all: slices
// begin and end between ticks. Three standard deviations; a slice's end is a coin at worst.
double tick_error(const Result& result, const Circumstances& with) {
  double ticks = 0, elapsed = 0, slices = 0;
  for (const SliceRow& row : result.slices) {
    if (row.gate != Gate::kept) continue;
    ticks += as_double(row.idle_ticks + row.steal_ticks);
    elapsed += as_double(row.elapsed_ns);
    ++slices;
  }
  const auto cpus = static_cast<double>(with.cpus);
  const double error = 3 * std::sqrt(std::min(ticks, slices * cpus / 4));
  return ratio(error * as_double(with.tick_ns), elapsed * cpus).value_or(0);
}

}  // namespace

Circumstances circumstances(const Plan& plan, const PlacementRecord& placement,
                            const StealRecord& steal) {
  std::set<int> cpus(placement.server_cpus.begin(), placement.server_cpus.end());
  cpus.insert(placement.client_cpus.begin(), placement.client_cpus.end());
  const bool same = placement.used == "same";
  return {same, std::max<std::size_t>(cpus.size(), 1), steal.tick_ns, same && plan.sweep};
}

double idle_share(const std::vector<SliceRow>& rows, const Circumstances& with) {
  double ticks = 0, elapsed = 0;
  for (const SliceRow& row : rows) {
    ticks += as_double(row.idle_ticks);
    elapsed += as_double(row.elapsed_ns);
  }
  const auto share =
      ratio(ticks * as_double(with.tick_ns), elapsed * static_cast<double>(with.cpus));
  return std::min(share.value_or(0), 1.0);
}

std::optional<double> little_error(const SliceRow& row) {
  const double waited = as_double(row.requests) * as_double(row.latency_mean_ns);
  const std::optional<double> share = ratio(row.inflight_mean * as_double(row.elapsed_ns), waited);
  if (!share) return std::nullopt;
  return std::abs(*share - 1);
}

std::optional<double> client_busy(const SliceRow& row, bool shared_cpu) {
  const double busy =
      as_double(row.client_cpu_ns) + (shared_cpu ? as_double(row.server_cpu_ns) : 0.0);
  return ratio(busy, as_double(row.elapsed_ns));
}

std::optional<double> cpu_share(const SliceRow& row, const Circumstances& with) {
  return ratio(as_double(row.client_cpu_ns) + as_double(row.server_cpu_ns),
               as_double(row.elapsed_ns) * static_cast<double>(with.cpus));
}

std::optional<double> others_share(const Result& result, const Circumstances& with) {
  if (!result.idle_known) return std::nullopt;
  double ours = 0, unused = 0, all = 0;
  for (const SliceRow& row : result.slices) {
    if (row.gate != Gate::kept) continue;
    ours += as_double(row.client_cpu_ns) + as_double(row.server_cpu_ns);
    unused += as_double((row.idle_ticks + row.steal_ticks) * with.tick_ns);
    all += as_double(row.elapsed_ns) * static_cast<double>(with.cpus);
  }
  return ratio(std::max(all - ours - unused, 0.0), all);
}

Gate judge_slice(const SliceRow& row, const CellShape& shape, const Circumstances& with,
                 double idle) {
  if (row.requests == 0 || row.elapsed_ns == 0) return Gate::empty;
  // A tick of stolen time may be all of a slice: that is left to the steal of the round.
  if (by_cpu_share(shape, with) && row.steal_ticks == 0 &&
      cpu_share(row, with).value_or(1) < kCpuShareLimit * (1 - idle)) {
    return Gate::busy;
  }
  if (by_run_delay(with) && delay_share(row).value_or(0) > kRunDelayLimit) return Gate::busy;
  if (shape.rate > 0) {
    if (as_double(row.requests) < kAchievedLimit * as_double(row.due)) return Gate::achieved;
    if (!with.pair && client_busy(row, with.shared_cpu).value_or(0) > kClientLimit) {
      return Gate::client;
    }
  } else if (little_error(row).value_or(0) > kLittleLimit) {
    return Gate::little;
  }
  return Gate::kept;
}

bool stolen(std::uint64_t ticks, std::uint64_t tick_ns, std::uint64_t elapsed_ns, std::size_t cpus,
            double median_share) {
  if (ticks < 2) return false;
  const double certain = as_double(ticks - 1) * as_double(tick_ns);
  const double limit = std::max(kStealFactor * median_share, kStealFloor);
  return certain > limit * as_double(elapsed_ns) * static_cast<double>(cpus);
}

void judge_result(Result& result, const CellShape& shape, const Plan& plan,
                  const Circumstances& with, const StealRecord& steal) {
  std::array<std::uint64_t, kGates> dropped{};
  for (const SliceRow& row : result.slices) ++dropped[static_cast<std::size_t>(row.gate)];
  const auto dropped_by = [&](Gate gate) { return dropped[static_cast<std::size_t>(gate)]; };
  const auto per_slice = [&](Gate gate, double limit, std::optional<double> worst) {
    result.gates.push_back({name_of(gate), limit, worst, dropped_by(gate), true});
  };
  const auto measured = [&](Gate gate, double limit) {
    per_slice(gate, limit, worst_of(result, gate, shape, with));
  };
  if (shape.rate > 0) {
    measured(Gate::achieved, kAchievedLimit);
    if (!with.pair) measured(Gate::client, kClientLimit);
  } else {
    measured(Gate::little, kLittleLimit);
  }
  if (by_cpu_share(shape, with)) measured(Gate::busy, kCpuShareLimit);
  if (by_run_delay(with)) measured(Gate::busy, kRunDelayLimit);
  const double steal_limit = std::max(kStealFactor * steal.median_share, kStealFloor);
  per_slice(Gate::steal, steal_limit, result.summary.steal_share);
  per_slice(Gate::empty, 0, std::nullopt);

  std::vector<std::string> reasons;
  const auto whole = [&](const char* name, double limit, double value, bool passed,
                         const std::string& reason) {
    result.gates.push_back({name, limit, value, 0, passed});
    if (!passed) reasons.push_back(reason);
  };
  if (!result.slices.empty()) {
    const std::uint64_t lost = result.slices.size() - dropped_by(Gate::kept);
    const double share = as_double(lost) / static_cast<double>(result.slices.size());
    std::string reason = fmt::format("{} of {} slices dropped", lost, result.slices.size());
    if (dropped_by(Gate::busy) > 0) {
      reason += fmt::format(", {} because something else ran on the CPU", dropped_by(Gate::busy));
    }
    whole("dropped", kDroppedLimit, share, share <= kDroppedLimit, reason);
    const double kept = as_double(dropped_by(Gate::kept)) / static_cast<double>(plan.slices);
    const bool said = share > kDroppedLimit;
    whole("complete", 1 - kDroppedLimit, kept, said || kept >= 1 - kDroppedLimit,
          fmt::format("only {} of {} slices kept: interrupted, or out of time (--cap)",
                      dropped_by(Gate::kept), plan.slices));
  }
  if (result.summary.others_share) {
    const double share = *result.summary.others_share;
    whole("others", kOthersLimit, share, share - tick_error(result, with) <= kOthersLimit,
          fmt::format("something else used {:.0f} % of the CPU", share * 100));
  }
  if (result.summary.achieved_share) {
    const double share = *result.summary.achieved_share;
    whole("keeps_up", kAchievedLimit, share, share >= kAchievedLimit,
          fmt::format("kept up with {:.1f} % of the offered rate", share * 100));
  }
  if (result.window.counters) {
    const auto found = result.window.counters->find("cq_overflows");
    const std::uint64_t count = found == result.window.counters->end() ? 0 : found->second;
    whole("cq_overflow", 0, as_double(count), count == 0,
          fmt::format("the io_uring completion queue overflowed {} times", count));
  }
  result.no_verdict = fmt::format("{}", fmt::join(reasons, "; "));
}

}  // namespace echolab::harness
