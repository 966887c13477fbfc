#include "harness/summary.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <string_view>
#include <utility>

#include "harness/gates.hpp"
#include "harness/ratio.hpp"
#include "harness/seam.hpp"
#include "harness/verdicts.hpp"

namespace echolab::harness {
namespace {

using Rows = std::vector<const SliceRow*>;

constexpr double kNsPerUs = 1e3;

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

// The slope between two counts of connections: what a server allocates once is in both. A slope
// downwards is somebody else's doing, and no figure.
void summarise_memory(const Window& w, Summary& s) {
  if (w.memory.size() < 2) return;
  const MemoryPoint &few = w.memory.front(), &many = w.memory.back();
  const auto slope = [&](std::uint64_t MemoryPoint::*bytes) -> std::optional<double> {
    if (many.connections <= few.connections || many.*bytes < few.*bytes) return std::nullopt;
    return as_double(many.*bytes - few.*bytes) / 1024 /
           as_double(many.connections - few.connections);
  };
  s.kib_per_connection = slope(&MemoryPoint::rss_bytes);
  s.tcp_kib_per_connection = slope(&MemoryPoint::tcp_memory_bytes);
}

void summarise_server(Result& result) {
  const Window& w = result.window;
  Summary& s = result.summary;
  if (w.requests == 0) return;
  const double requests = as_double(w.requests);
  s.user_us_per_request = as_double(w.user_ns) / kNsPerUs / requests;
  s.system_us_per_request = as_double(w.system_ns) / kNsPerUs / requests;
  s.workers_us_per_request = as_double(w.workers_ns) / kNsPerUs / requests;
  if (w.run_delay_ns) {
    s.run_delay_us_per_request = as_double(*w.run_delay_ns) / kNsPerUs / requests;
  }
  s.voluntary_switches_per_request = as_double(w.voluntary_switches) / requests;
  s.involuntary_switches_per_request = as_double(w.involuntary_switches) / requests;
  summarise_memory(w, s);
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

// Pair by pair within a round, so that the machine's drift cancels; the median of each block, and
// the median over blocks. Percentiles block by block, or of all together where blocks are too
// short.
void summarise_ratios(Result& result, const Result& baseline) {
  Summary& s = result.summary;
  const auto middle = [&](const Metric& metric) -> std::optional<double> {
    const std::vector<double> blocks = block_ratios(result, baseline, metric);
    if (blocks.empty()) return std::nullopt;
    return std::exp(median(blocks));
  };
  for (const Metric& metric : verdict_metrics()) s.*metric.ratio = middle(metric);
  static constexpr Metric kP50{
      "p50", "p50", Better::less, 0, nullptr, &Summary::ratio_p50, nullptr, &BlockRow::p50_ns};
  s.ratio_p50 = middle(kP50);
  const auto of_all = [&](std::optional<double> Summary::*us) -> std::optional<double> {
    const std::optional<double>&here = s.*us, &there = baseline.summary.*us;
    return here && there ? ratio(*here, *there) : std::nullopt;
  };
  if (!s.ratio_p50) s.ratio_p50 = of_all(&Summary::p50_us);
  if (!s.ratio_p99) s.ratio_p99 = of_all(&Summary::p99_us);
}

}  // namespace

std::optional<double> achieved_share(const Rows& rows, const Plan& plan) {
  const auto slice = static_cast<double>(plan.slice.count());
  const std::optional<double> answered =
      ratio(sum(rows, &SliceRow::requests), sum(rows, &SliceRow::due));
  if (!answered) return std::nullopt;
  return *answered * slice / (slice + certain_backlog(rows, slice));
}

void summarise(CellRecord& cell, const Plan& plan, const PlacementRecord& placement,
               const StealRecord& steal) {
  const Circumstances with = circumstances(plan, placement, steal);
  const Result* baseline = nullptr;
  for (Result& result : cell.results) {
    result.summary = Summary{};
    result.gates.clear();
    summarise_load(result, cell.shape, plan);
    summarise_server(result);
    double ticks = 0, elapsed = 0;
    for (const SliceRow& row : result.slices) {
      ticks += as_double(row.steal_ticks);
      elapsed += as_double(row.elapsed_ns);
    }
    result.summary.steal_share =
        ratio(ticks * as_double(steal.tick_ns), elapsed * static_cast<double>(with.cpus));
    result.summary.others_share = others_share(result, with);
    judge_result(result, cell.shape, plan, with, steal);
    if (result.variant == plan.baseline) baseline = &result;
  }
  cell.seams = seams_of(cell, plan);
  if (baseline == nullptr) return;
  for (Result& result : cell.results) summarise_ratios(result, *baseline);
  judge_cell(cell, plan);
}

}  // namespace echolab::harness
