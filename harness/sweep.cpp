#include "harness/sweep.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "harness/gates.hpp"
#include "harness/summary.hpp"
#include "harness/units.hpp"

namespace echolab::harness {
namespace {

// Two halvings of a bracket of this factor leave less than 5 %.
constexpr double kLadderFactor = 1.2;
constexpr unsigned kLadderSteps = 10;
// Open loop can serve more than the closed-loop peak: at depth 1 nobody waits in a queue there.
constexpr double kLadderTop = 1.2;  // of the highest peak
constexpr double kQuickFactor = 1.5;
constexpr unsigned kQuickSteps = 5;
constexpr double kNarrow = 1.05;  // a bracket that is narrow enough
// Each variant needs two or three; one that no machine noise exhausts.
constexpr unsigned kMostRefinements = 40;
constexpr unsigned kMissesToDrop = 2;  // in a row
// A sweep of the default backends takes less on a quiet machine.
constexpr std::chrono::nanoseconds kSweepTime{175'000'000'000};
constexpr std::chrono::nanoseconds kQuickSweepTime{37'000'000'000};

double quantile_of(double percentile) {
  return percentile / 100;
}

bool failed_gate(const Result& result, const std::string& name) {
  return std::any_of(result.gates.begin(), result.gates.end(),
                     [&](const GateResult& gate) { return gate.gate == name && !gate.passed; });
}

double dropped_share(const Result& result, std::initializer_list<Gate> by) {
  if (result.slices.empty()) return 0;
  const auto count = std::count_if(
      result.slices.begin(), result.slices.end(),
      [&](const SliceRow& row) { return std::find(by.begin(), by.end(), row.gate) != by.end(); });
  return static_cast<double>(count) / static_cast<double>(result.slices.size());
}

// Why the rate was not kept up with; empty if it was, as far as that is known.
std::string overload(const Result& result) {
  if (failed_gate(result, "keeps_up")) {
    return fmt::format("kept up with {:.1f} % of the rate",
                       result.summary.achieved_share.value_or(0) * 100);
  }
  if (dropped_share(result, {Gate::achieved}) > kDroppedLimit) {
    return "skipped requests: too many were in flight";
  }
  return "";
}

// What the machine did, not the server; empty if nothing.
std::string spoiled(const Result& result) {
  if (dropped_share(result, {Gate::steal, Gate::busy, Gate::empty}) > kDroppedLimit ||
      failed_gate(result, "others")) {
    return result.no_verdict.empty() ? "slices dropped" : result.no_verdict;
  }
  return "";
}

using Steps = std::vector<SweepStep>;

Steps steps_of(const Steps& all, const std::string& variant) {
  Steps out;
  for (const SweepStep& step : all) {
    if (step.variant == variant) out.push_back(step);
  }
  return out;
}

bool drops_out(const Steps& steps) {
  if (!steps.empty() && steps.back().slo == Slo::failed) return true;
  if (steps.size() < kMissesToDrop) return false;
  return std::all_of(steps.end() - kMissesToDrop, steps.end(),
                     [](const SweepStep& s) { return s.slo == Slo::missed; });
}

std::optional<double> highest_met(const Steps& steps) {
  std::optional<double> out;
  for (const SweepStep& step : steps) {
    if (step.slo == Slo::met) out = std::max(out.value_or(0), step.rate_per_s);
  }
  return out;
}

template <class Wanted>
const SweepStep* lowest_above(const Steps& steps, double rate, Wanted wanted) {
  const SweepStep* out = nullptr;
  for (const SweepStep& step : steps) {
    if (step.rate_per_s <= rate || !wanted(step)) continue;
    if (out == nullptr || step.rate_per_s < out->rate_per_s) out = &step;
  }
  return out;
}

bool is_missed(const SweepStep& step) {
  return step.slo == Slo::missed;
}

struct Bracket {
  double low = 0, high = 0;  // met; not met, or not known
  [[nodiscard]] double width() const { return high / low; }
  [[nodiscard]] double middle() const { return std::round(std::sqrt(low * high)); }
};

std::optional<Bracket> wide_bracket(const Steps& steps) {
  const std::optional<double> low = highest_met(steps);
  if (!low) return std::nullopt;
  const SweepStep* high = lowest_above(steps, *low, [](const SweepStep&) { return true; });
  if (high == nullptr || high->slo == Slo::failed) return std::nullopt;
  const Bracket bracket{*low, high->rate_per_s};
  if (bracket.width() <= kNarrow) return std::nullopt;
  return bracket;
}

SweepResult conclude(const std::string& variant, const Steps& steps) {
  SweepResult out;
  out.variant = variant;
  if (steps.empty()) {
    out.why = "not measured: the time was up, or it is not available";
    return out;
  }
  out.highest_rate_per_s = highest_met(steps);
  const double met = out.highest_rate_per_s.value_or(0);
  const SweepStep* missed = lowest_above(steps, met, is_missed);
  if (missed != nullptr) out.lowest_missed_rate_per_s = missed->rate_per_s;
  std::vector<std::string> why;
  const SweepStep* next = lowest_above(steps, met, [](const SweepStep&) { return true; });
  if (next == nullptr) {
    why.emplace_back("met at the highest rate offered");
  } else if (next->slo != Slo::missed) {
    why.push_back(fmt::format("{} at {}: {}", next->slo == Slo::failed ? "failed" : "not known",
                              next->rate_per_s, next->why));
  } else if (!out.highest_rate_per_s) {
    why.push_back(fmt::format("missed at the lowest rate offered: {}", next->why));
  } else {
    why.push_back(fmt::format("missed at {}: {}", next->rate_per_s, next->why));
    if (next->rate_per_s > met * kNarrow) why.emplace_back("nothing was offered between");
  }
  const SweepStep* below = lowest_above(steps, 0, is_missed);
  if (below != nullptr && below->rate_per_s < met) {
    why.push_back(fmt::format("missed at {} too, a lower rate: noise", below->rate_per_s));
  }
  out.why = fmt::format("{}", fmt::join(why, "; "));
  return out;
}

}  // namespace

SweepGoal parse_slo(const std::string& text) {
  const auto refuse = [&] {
    return UsageError(fmt::format(
        "--slo '{}': expected p50, p90, p99 or p99.9 below a time in us or ms, such as p99<1ms",
        text));
  };
  const std::size_t sign = text.find('<');
  if (sign == std::string::npos) throw refuse();
  const std::string percentile = text.substr(0, sign), limit = text.substr(sign + 1);
  constexpr std::pair<const char*, double> kKnown[] = {
      {"p50", 50}, {"p90", 90}, {"p99", 99}, {"p99.9", 99.9}};
  for (const auto& [name, value] : kKnown) {
    if (percentile != name) continue;
    if (!limit.ends_with("us") && !limit.ends_with("ms")) throw refuse();
    try {
      return {value, parse_duration(limit, "--slo")};
    } catch (const UsageError&) {
      throw refuse();
    }
  }
  throw refuse();
}

std::string slo_text(double percentile, std::uint64_t limit_ns) {
  return fmt::format("p{:g} < {}", percentile, format_duration(std::chrono::nanoseconds(limit_ns)));
}

std::vector<double> sweep_shares(bool quick) {
  const unsigned steps = quick ? kQuickSteps : kLadderSteps;
  std::vector<double> out;
  for (unsigned i = 0; i < steps; ++i) {
    out.push_back(kLadderTop * std::pow(quick ? kQuickFactor : kLadderFactor,
                                        static_cast<double>(i) - (steps - 1)));
  }
  return out;
}

std::vector<double> sweep_rates(const Plan& plan, unsigned connections, std::size_t size) {
  double highest = 0;
  for (const Peak& peak : plan.peaks) {
    if (peak.connections != connections || peak.size != size) continue;
    if (peak.variant != kGenerator) highest = std::max(highest, peak.rate);
  }
  std::set<double> rates;
  if (highest == 0) return {};
  const double least = kMinDuePerSlice / std::chrono::duration<double>(plan.slice).count();
  for (const double share : sweep_shares(plan.quick)) {
    rates.insert(std::ceil(std::min(std::max(share * highest, least), kMaxRate)));
  }
  return {rates.begin(), rates.end()};
}

std::chrono::nanoseconds sweep_time(const Plan& plan, std::size_t sweeps) {
  if (plan.cap > std::chrono::nanoseconds::zero()) return plan.cap;
  return (plan.quick ? kQuickSweepTime : kSweepTime) * sweeps;
}

bool enough_samples(const CellRecord& cell, const SweepGoal& goal) {
  return std::all_of(cell.results.begin(), cell.results.end(), [&](const Result& result) {
    return !result.error.empty() || !result.no_verdict.empty() ||
           result.latency.supported_quantile(quantile_of(goal.percentile));
  });
}

SweepStep judge_step(const Result& result, double rate, const Plan& plan,
                     const std::vector<std::uint64_t>& block_percentiles) {
  SweepStep step{rate, result.variant, Slo::unknown, {}, 0, block_percentiles.size(), ""};
  const auto limit = static_cast<std::uint64_t>(plan.sweep->limit.count());
  step.blocks_met =
      static_cast<std::size_t>(std::count_if(block_percentiles.begin(), block_percentiles.end(),
                                             [&](std::uint64_t ns) { return ns < limit; }));
  step.percentile_ns = result.latency.supported_quantile(quantile_of(plan.sweep->percentile));
  if (!result.error.empty()) {
    step.slo = Slo::failed;
    step.why = result.error;
    return step;
  }
  if (step.why = spoiled(result); !step.why.empty()) return step;
  if (step.why = overload(result); !step.why.empty()) {
    step.slo = Slo::missed;
    return step;
  }
  step.why = result.no_verdict;
  if (!step.why.empty()) return step;
  if (!step.percentile_ns) {
    step.why = fmt::format("{} samples are too few for p{:g}", result.latency.count(),
                           plan.sweep->percentile);
    return step;
  }
  if (*step.percentile_ns >= limit) {
    step.slo = Slo::missed;
    step.why = fmt::format("p{:g} is {:.0f} us", plan.sweep->percentile,
                           static_cast<double>(*step.percentile_ns) / 1e3);
  } else if (2 * step.blocks_met <= step.blocks) {
    step.slo = Slo::missed;
    step.why = fmt::format("met in {} of {} blocks only", step.blocks_met, step.blocks);
  } else {
    step.slo = Slo::met;
  }
  return step;
}

SweepRecord begin_sweep(const CellShape& shape, const SweepGoal& goal) {
  SweepRecord sweep;
  sweep.connections = shape.connections;
  sweep.size = shape.size;
  sweep.percentile = goal.percentile;
  sweep.limit_ns = static_cast<std::uint64_t>(goal.limit.count());
  return sweep;
}

bool search(SweepRecord& sweep, const std::vector<std::string>& variants,
            const std::vector<double>& ladder, bool refine, const Measure& measure) {
  std::vector<std::string> present = variants;
  const auto offer = [&](double rate, const std::vector<std::string>& to) {
    const std::optional<Steps> answer = measure(rate, to);
    if (!answer) return false;
    sweep.steps.insert(sweep.steps.end(), answer->begin(), answer->end());
    for (const std::string& variant : to) {
      if (steps_of(*answer, variant).empty()) std::erase(present, variant);
    }
    return true;
  };
  bool complete = !ladder.empty();
  for (const double rate : ladder) {
    std::vector<std::string> to;
    for (const std::string& variant : present) {
      if (!drops_out(steps_of(sweep.steps, variant))) to.push_back(variant);
    }
    if (to.empty()) break;
    if (!offer(rate, to)) {
      complete = false;
      break;
    }
  }
  std::set<double> offered(ladder.begin(), ladder.end());
  for (unsigned n = 0; complete && refine && n < kMostRefinements; ++n) {
    std::optional<Bracket> widest;
    for (const std::string& variant : present) {
      const std::optional<Bracket> one = wide_bracket(steps_of(sweep.steps, variant));
      if (!one || offered.contains(one->middle())) continue;
      if (!widest || one->width() > widest->width()) widest = one;
    }
    if (!widest) break;
    const double rate = widest->middle();
    std::vector<std::string> to;
    for (const std::string& variant : present) {
      const std::optional<Bracket> one = wide_bracket(steps_of(sweep.steps, variant));
      if (one && one->low < rate && rate < one->high) to.push_back(variant);
    }
    offered.insert(rate);
    if (to.empty() || !offer(rate, to)) break;
  }
  for (const std::string& variant : variants) {
    sweep.results.push_back(conclude(variant, steps_of(sweep.steps, variant)));
  }
  return complete;
}

std::string sweep_title(const SweepRecord& sweep) {
  return fmt::format("Sweep: {} connection{}, {}: the highest rate with {}", sweep.connections,
                     sweep.connections == 1 ? "" : "s", format_size(sweep.size),
                     slo_text(sweep.percentile, sweep.limit_ns));
}

std::vector<std::string> sweep_headings(const SweepRecord& sweep) {
  std::vector<std::string> out{fmt::format("req/s: p{:g} us", sweep.percentile)};
  for (const SweepResult& result : sweep.results) out.push_back(result.variant);
  return out;
}

std::vector<std::vector<std::string>> sweep_rows(const SweepRecord& sweep) {
  std::set<double> rates;
  for (const SweepStep& step : sweep.steps) rates.insert(step.rate_per_s);
  std::vector<std::vector<std::string>> rows;
  for (const double rate : rates) {
    std::vector<std::string> row{fmt::format("{}", rate)};
    for (const SweepResult& result : sweep.results) {
      std::string text = "-";
      for (const SweepStep& step : sweep.steps) {
        if (step.rate_per_s != rate || step.variant != result.variant) continue;
        const std::string value =
            step.percentile_ns
                ? fmt::format("{:.0f} ", static_cast<double>(*step.percentile_ns) / 1e3)
                : "";
        text = value + name_of(step.slo);
      }
      row.push_back(text);
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<std::string> sweep_lines(const SweepRecord& sweep) {
  std::vector<std::string> out;
  for (const SweepResult& result : sweep.results) {
    const std::string up_to = result.highest_rate_per_s ? fmt::format("met up to {} requests/s",
                                                                      *result.highest_rate_per_s)
                                                        : "met at no rate that is known";
    out.push_back(fmt::format("{}: {} {}; {}", result.variant,
                              slo_text(sweep.percentile, sweep.limit_ns), up_to, result.why));
  }
  return out;
}

}  // namespace echolab::harness
