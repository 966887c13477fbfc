#include "harness/summary.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <string_view>

namespace echolab::harness {
namespace {

using Rows = std::vector<const SliceRow*>;

constexpr double kNsPerUs = 1e3;

double as_double(std::uint64_t value) {
  return static_cast<double>(value);
}

std::optional<double> ratio(double over, double under) {
  if (!(under > 0)) return std::nullopt;
  return over / under;
}

std::optional<double> percentile_us(const Histogram& h, double q) {
  const std::optional<std::uint64_t> value = h.supported_quantile(q);
  if (!value) return std::nullopt;
  return as_double(*value) / kNsPerUs;
}

Rows kept(const Result& result) {
  Rows rows;
  for (const SliceRow& row : result.slices) {
    if (row.gate == Gate::kept) rows.push_back(&row);
  }
  return rows;
}

double sum(const Rows& rows, std::uint64_t SliceRow::*field) {
  double total = 0;
  for (const SliceRow* row : rows) total += as_double(row->*field);
  return total;
}

// How long the server is behind at the end of a slice, as far as that is certain; ns. A slice
// waits for its last replies, and those come late. In a steady state they do by one latency on
// average, whatever makes the latency (Poisson arrivals see time averages), so that over many
// slices lateness and mean latency agree, also on a machine that stalls now and then. A backlog
// that grows through the slice makes it late by all of the backlog, and the mean latency by half of
// it, so what lateness exceeds latency by is half of the backlog. A latency that is a good part of
// the slice cannot be told from a backlog and is not forgiven; the median slice decides that,
// because one stall makes any slice late. What two standard errors explain may be chance.
double certain_backlog(const Rows& rows, double slice) {
  constexpr double kMostForgiven = 0.1;  // of the slice
  constexpr double kCertain = 2;         // standard errors
  const auto n = static_cast<double>(rows.size());
  std::vector<double> latencies;
  for (const SliceRow* row : rows) latencies.push_back(as_double(row->latency_mean_ns));
  const double forgiven = std::min(1.0, kMostForgiven * slice / std::max(median(latencies), 1.0));
  double late = 0, excess = 0, squares = 0;
  for (const SliceRow* row : rows) {
    const double lateness = std::max(0.0, as_double(row->elapsed_ns) - slice);
    const double beyond = lateness - forgiven * as_double(row->latency_mean_ns);
    late += lateness / n;
    excess += beyond / n;
    squares += beyond * beyond / n;
  }
  const double variance = std::max(0.0, squares - excess * excess);
  const double error = rows.size() > 1 ? std::sqrt(variance / (n - 1)) : 0;
  return std::clamp(2 * (excess - kCertain * error), 0.0, late);
}

// The share of the offered requests that the server keeps up with: of what was due, what was
// answered at all (the rest was skipped), and of the time, what was planned for it.
std::optional<double> achieved_share(const Rows& rows, const Plan& plan) {
  const auto slice = static_cast<double>(plan.slice.count());
  const std::optional<double> answered =
      ratio(sum(rows, &SliceRow::requests), sum(rows, &SliceRow::due));
  if (!answered) return std::nullopt;
  return *answered * slice / (slice + certain_backlog(rows, slice));
}

void summarise_load(Result& result, const CellShape& shape, const Plan& plan) {
  const Rows rows = kept(result);
  Summary& s = result.summary;
  const double requests = sum(rows, &SliceRow::requests);
  const double elapsed = sum(rows, &SliceRow::elapsed_ns);
  if (requests == 0 || elapsed == 0) return;
  s.requests = requests;
  s.measured_s = elapsed / 1e9;
  s.requests_per_s = requests / (elapsed / 1e9);
  s.mb_per_s = *s.requests_per_s * static_cast<double>(shape.size) / 1e6;
  s.server_cpu_us_per_request = sum(rows, &SliceRow::server_cpu_ns) / kNsPerUs / requests;
  s.client_cpu_us_per_request = sum(rows, &SliceRow::client_cpu_ns) / kNsPerUs / requests;
  s.mean_us = result.latency.mean() / kNsPerUs;
  s.p50_us = percentile_us(result.latency, 0.5);
  s.p90_us = percentile_us(result.latency, 0.9);
  s.p99_us = percentile_us(result.latency, 0.99);
  s.p999_us = percentile_us(result.latency, 0.999);
  s.max_us = as_double(result.latency.max()) / kNsPerUs;
  if (result.raw) {
    s.raw_p50_us = percentile_us(*result.raw, 0.5);
    s.raw_p90_us = percentile_us(*result.raw, 0.9);
    s.raw_p99_us = percentile_us(*result.raw, 0.99);
    s.raw_p999_us = percentile_us(*result.raw, 0.999);
    s.raw_max_us = as_double(result.raw->max()) / kNsPerUs;
  }
  if (shape.rate > 0) s.achieved_share = achieved_share(rows, plan);
}

void summarise_server(Result& result, const CellShape& shape) {
  const Window& w = result.window;
  Summary& s = result.summary;
  if (w.requests == 0) return;
  const double requests = as_double(w.requests);
  s.user_us_per_request = as_double(w.user_ns) / kNsPerUs / requests;
  s.system_us_per_request = as_double(w.system_ns) / kNsPerUs / requests;
  s.workers_us_per_request = as_double(w.workers_ns) / kNsPerUs / requests;
  s.voluntary_switches_per_request = as_double(w.voluntary_switches) / requests;
  s.involuntary_switches_per_request = as_double(w.involuntary_switches) / requests;
  if (shape.connections >= kMemoryConnections && w.rss_connected_bytes >= w.rss_before_bytes) {
    s.kib_per_connection =
        as_double(w.rss_connected_bytes - w.rss_before_bytes) / 1024.0 / shape.connections;
  }
  if (!w.counters) return;
  constexpr std::string_view kSyscall = "sys_";
  double calls = 0;
  for (const auto& [name, count] : *w.counters) {
    if (!name.starts_with(kSyscall)) continue;
    calls += as_double(count);
    if (count > 0) s.syscalls_by_kind[name.substr(kSyscall.size())] = as_double(count) / requests;
  }
  s.syscalls_per_request = calls / requests;
  const auto wakeups = w.counters->find("wakeups");
  const auto events = w.counters->find("events");
  if (wakeups == w.counters->end() || events == w.counters->end()) return;
  s.wakeups_per_request = as_double(wakeups->second) / requests;
  s.events_per_wakeup = ratio(as_double(events->second), as_double(wakeups->second));
}

// Pair by pair within a round, so that the machine's drift cancels; then the median over rounds.
void summarise_ratios(Result& result, const Result& baseline) {
  std::map<std::pair<std::uint32_t, std::uint32_t>, const SliceRow*> rounds;
  for (const SliceRow* row : kept(baseline)) rounds[{row->block, row->round}] = row;
  std::vector<double> cpu, throughput, p50, p99;
  const auto add = [](std::vector<double>& to, double over, double under) {
    if (over > 0 && under > 0) to.push_back(over / under);
  };
  for (const SliceRow* row : kept(result)) {
    const auto found = rounds.find({row->block, row->round});
    if (found == rounds.end()) continue;
    const SliceRow& base = *found->second;
    const double mine = as_double(row->requests), theirs = as_double(base.requests);
    add(cpu, as_double(row->server_cpu_ns) / mine, as_double(base.server_cpu_ns) / theirs);
    add(throughput, mine / as_double(row->elapsed_ns), theirs / as_double(base.elapsed_ns));
    add(p50, as_double(row->p50_ns), as_double(base.p50_ns));
    add(p99, as_double(row->p99_ns), as_double(base.p99_ns));
  }
  Summary& s = result.summary;
  const auto middle = [](const std::vector<double>& values) -> std::optional<double> {
    if (values.empty()) return std::nullopt;
    return median(values);
  };
  s.ratio_cpu = middle(cpu);
  s.ratio_throughput = middle(throughput);
  if (s.p50_us && baseline.summary.p50_us) s.ratio_p50 = middle(p50);
  if (s.p99_us && baseline.summary.p99_us) s.ratio_p99 = middle(p99);
}

std::optional<double> worst_of(const Result& result, Gate gate, bool shared_cpu) {
  std::optional<double> worst;
  for (const SliceRow& row : result.slices) {
    std::optional<double> value;
    if (gate == Gate::little) value = little_error(row);
    if (gate == Gate::client) value = client_busy(row, shared_cpu);
    if (gate == Gate::achieved) value = ratio(as_double(row.requests), as_double(row.due));
    if (!value) continue;
    const bool lower_is_worse = gate == Gate::achieved;
    if (!worst || (lower_is_worse ? *value < *worst : *value > *worst)) worst = value;
  }
  return worst;
}

void judge_result(Result& result, const CellShape& shape, const PlacementRecord& placement,
                  const StealRecord& steal) {
  const bool shared = placement.used == "same";
  std::array<std::uint64_t, kGates> dropped{};
  for (const SliceRow& row : result.slices) ++dropped[static_cast<std::size_t>(row.gate)];
  const auto per_slice = [&](Gate gate, double limit, std::optional<double> worst) {
    result.gates.push_back(
        {name_of(gate), limit, worst, dropped[static_cast<std::size_t>(gate)], true});
  };
  if (shape.rate > 0) {
    per_slice(Gate::achieved, kAchievedLimit, worst_of(result, Gate::achieved, shared));
    per_slice(Gate::client, kClientLimit, worst_of(result, Gate::client, shared));
  } else {
    per_slice(Gate::little, kLittleLimit, worst_of(result, Gate::little, shared));
  }
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
    const std::uint64_t lost = result.slices.size() - dropped[0];
    const double share = as_double(lost) / static_cast<double>(result.slices.size());
    whole("dropped", kDroppedLimit, share, share <= kDroppedLimit,
          fmt::format("{} of {} slices dropped", lost, result.slices.size()));
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

}  // namespace

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
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

Gate judge_slice(const SliceRow& row, const CellShape& shape, bool shared_cpu) {
  if (row.requests == 0 || row.elapsed_ns == 0) return Gate::empty;
  if (shape.rate > 0) {
    if (as_double(row.requests) < kAchievedLimit * as_double(row.due)) return Gate::achieved;
    if (client_busy(row, shared_cpu).value_or(0) > kClientLimit) return Gate::client;
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

void summarise(CellRecord& cell, const Plan& plan, const PlacementRecord& placement,
               const StealRecord& steal) {
  std::vector<int> cpus = placement.server_cpus;
  cpus.insert(cpus.end(), placement.client_cpus.begin(), placement.client_cpus.end());
  std::sort(cpus.begin(), cpus.end());
  cpus.erase(std::unique(cpus.begin(), cpus.end()), cpus.end());
  const Result* baseline = nullptr;
  for (Result& result : cell.results) {
    result.summary = Summary{};
    result.gates.clear();
    summarise_load(result, cell.shape, plan);
    summarise_server(result, cell.shape);
    double ticks = 0, elapsed = 0;
    for (const SliceRow& row : result.slices) {
      ticks += as_double(row.steal_ticks);
      elapsed += as_double(row.elapsed_ns);
    }
    result.summary.steal_share =
        ratio(ticks * as_double(steal.tick_ns), elapsed * static_cast<double>(cpus.size()));
    judge_result(result, cell.shape, placement, steal);
    if (result.variant == plan.baseline) baseline = &result;
  }
  if (baseline == nullptr) return;
  for (Result& result : cell.results) summarise_ratios(result, *baseline);
}

}  // namespace echolab::harness
