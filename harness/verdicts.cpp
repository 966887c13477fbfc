#include "harness/verdicts.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "harness/ratio.hpp"

namespace echolab::harness {
namespace {

// Of a block; fewer have too few beyond the p99.
constexpr double kSamplesForP99 = BlockRow::kSamplesBeyond / 0.01;

// Half of what counts as a difference in CPU per request: an interval this narrow around 1 is
// clearly within it, around 1.03 clearly beyond.
constexpr double kNarrowEnough = 0.01;

// Latency is compared where the requests in flight differ by less than this share: half of what
// counts as a difference in p99.
constexpr double kSameLoad = 0.05;

std::optional<double> cpu_per_request(const SliceRow& row) {
  return ratio(as_double(row.server_cpu_ns), as_double(row.requests));
}
std::optional<double> throughput(const SliceRow& row) {
  return ratio(as_double(row.requests), as_double(row.elapsed_ns));
}

// Block -> the logarithms of its rounds -> the median of each block.
std::vector<double> medians(const std::map<std::uint32_t, std::vector<double>>& blocks) {
  std::vector<double> out;
  for (const auto& [block, values] : blocks) out.push_back(median(values));
  return out;
}

std::optional<double> log_of(const SliceRow& row, const Metric& metric) {
  const std::optional<double> value = metric.of(row);
  if (!value || !(*value > 0)) return std::nullopt;
  return std::log(*value);
}

// Block -> the logarithm of its percentile.
std::map<std::uint32_t, double> percentiles(const Result& result, const Metric& metric) {
  std::map<std::uint32_t, double> out;
  for (const BlockRow& row : result.blocks) {
    const std::optional<std::uint64_t>& ns = row.*metric.percentile;
    if (ns && *ns > 0) out[row.block] = std::log(as_double(*ns));
  }
  return out;
}

// Why a row is not fit for a verdict at all; empty if it is.
std::string unfit(const Result& result) {
  if (!result.error.empty()) return "failed";
  return result.no_verdict.empty() ? "" : "gates failed";
}

// The mean of requests in flight over the kept slices. A closed loop that has not started all
// connections when its slice ends loads a slow server less than a fast one.
std::optional<double> in_flight(const Result& result) {
  double sum = 0;
  std::uint64_t kept = 0;
  for (const SliceRow& row : result.slices) {
    if (row.gate != Gate::kept) continue;
    sum += row.inflight_mean;
    ++kept;
  }
  return ratio(sum, as_double(kept));
}

void withhold(Judgement& one, const std::string& why) {
  one.verdict = Verdict::none;
  one.why = why;
}

class CellJudge {
 public:
  CellJudge(CellRecord& cell, const Plan& plan, const Result& baseline, const Result* copy,
            const Metric& metric)
      : cell_(cell), plan_(plan), baseline_(baseline), copy_(copy), metric_(metric) {}

  void run() {
    const Estimate copies =
        copy_ != nullptr ? estimate(*copy_) : Estimate{0, 0, {}};  // no copy: no interval
    const Delta delta = delta_with(metric_.delta, copies.interval());
    const std::string cell_unfit = why_none(copies);
    std::vector<std::pair<Result*, Estimate>> rows;
    std::size_t beside = 0;
    for (Result& result : cell_.results) {
      if (&result == &baseline_ || !known(result)) continue;
      Estimate of_row = estimate(result);
      if (of_row.samples == 0 && few(result).empty()) continue;
      if (&result != copy_ && !control(result) && unfit(result).empty()) ++beside;
      rows.emplace_back(&result, std::move(of_row));
    }
    std::vector<Judgement*> family;
    for (auto& [result, of_row] : rows) {
      std::optional<Judgement>& slot = result->verdicts.*metric_.judgement;
      slot = judge(of_row, result == copy_ ? Delta{metric_.delta, metric_.delta} : delta,
                   metric_.better, beside);
      if (of_row.samples == 0) slot->ratio = *(result->summary.*metric_.ratio);  // of all together
      if (result == copy_) {
        withhold(*slot, "the baseline's second copy");
      } else if (control(*result)) {
        withhold(*slot, "a control: see the seam's cost");
      } else if (const std::string why = unfit(*result); !why.empty()) {
        withhold(*slot, why);
      } else if (const std::string why = few(*result); !slot->smallest_effect && !why.empty()) {
        withhold(*slot, why);
      } else if (const std::string why = other_load(*result); !why.empty()) {
        withhold(*slot, why);
      } else if (!cell_unfit.empty()) {
        const bool seen = slot->smallest_effect.has_value();
        withhold(*slot, cell_unfit + (seen ? fmt::format("; could have seen {:.1f} %",
                                                         *slot->smallest_effect * 100)
                                           : ""));
      } else {
        family.push_back(&*slot);
      }
    }
    settle(family);
  }

 private:
  [[nodiscard]] Estimate estimate(const Result& result) const {
    const std::vector<double> values = block_ratios(result, baseline_, metric_);
    return values.empty() ? Estimate{0, 0, {}} : estimate_median(values);
  }
  // It is measured against its own backend (seam.hpp): more comparisons would only weaken the rest.
  [[nodiscard]] bool control(const Result& result) const {
    return std::any_of(plan_.contenders.begin(), plan_.contenders.end(),
                       [&](const Contender& c) { return c.name == result.variant && c.control(); });
  }
  // A ratio that is not printed has no verdict either.
  [[nodiscard]] bool known(const Result& result) const {
    return (result.summary.*metric_.ratio).has_value();
  }
  [[nodiscard]] std::string few(const Result& result) const {
    return too_few_samples(result, baseline_, metric_);
  }
  // Who has fewer requests to serve at a time has the lower latency for that reason alone.
  [[nodiscard]] std::string other_load(const Result& result) const {
    if (metric_.percentile == nullptr || cell_.shape.rate > 0) return "";
    const std::optional<double> one = in_flight(result), other = in_flight(baseline_);
    if (!one || !other) return "";
    if (std::abs(*one - *other) <= kSameLoad * std::max(*one, *other)) return "";
    return fmt::format(
        "not the same load: {:.3g} requests in flight against {:.3g}; use a longer --slice", *one,
        *other);
  }
  [[nodiscard]] std::string why_none(const Estimate& copies) const {
    if (const std::string why = unfit(baseline_); !why.empty()) return "the baseline: " + why;
    if (copy_ == nullptr) return "no A/A";
    if (const std::string why = unfit(*copy_); !why.empty()) {
      return "A/A: " + why;
    }
    if (!copies.interval()) {
      const std::string why = few(*copy_);
      return "A/A: " + (why.empty() ? "too few blocks" : why);
    }
    if (!copies_differ(copies, metric_.delta)) return "";
    return fmt::format("too noisy: A/A differs by {:.1f} %",
                       std::abs(std::expm1(copies.center)) * 100);
  }

  CellRecord& cell_;
  const Plan& plan_;
  const Result& baseline_;
  const Result* copy_;
  const Metric& metric_;
};

}  // namespace

const std::vector<Metric>& verdict_metrics() {
  static const std::vector<Metric> metrics{
      {"cpu", "CPU/request", Better::less, 0.02, &Verdicts::cpu, &Summary::ratio_cpu,
       cpu_per_request, nullptr},
      {"throughput", "requests/s", Better::more, 0.05, &Verdicts::throughput,
       &Summary::ratio_throughput, throughput, nullptr},
      {"p99", "p99", Better::less, 0.10, &Verdicts::p99, &Summary::ratio_p99, nullptr,
       &BlockRow::p99_ns}};
  return metrics;
}

std::vector<double> block_values(const Result& result, const Metric& metric) {
  if (metric.percentile != nullptr) {
    std::vector<double> out;
    for (const auto& [block, value] : percentiles(result, metric)) out.push_back(value);
    return out;
  }
  std::map<std::uint32_t, std::vector<double>> blocks;
  for (const SliceRow& row : result.slices) {
    if (row.gate != Gate::kept) continue;
    if (const std::optional<double> value = log_of(row, metric))
      blocks[row.block].push_back(*value);
  }
  return medians(blocks);
}

std::vector<double> block_ratios(const Result& result, const Result& baseline,
                                 const Metric& metric) {
  if (metric.percentile != nullptr) {
    const std::map<std::uint32_t, double> to = percentiles(baseline, metric);
    std::vector<double> out;
    for (const auto& [block, value] : percentiles(result, metric)) {
      if (const auto found = to.find(block); found != to.end())
        out.push_back(value - found->second);
    }
    return out;
  }
  std::map<std::pair<std::uint32_t, std::uint32_t>, double> rounds;
  for (const SliceRow& row : baseline.slices) {
    const std::optional<double> value = log_of(row, metric);
    if (row.gate == Gate::kept && value) rounds[{row.block, row.round}] = *value;
  }
  std::map<std::uint32_t, std::vector<double>> blocks;
  for (const SliceRow& row : result.slices) {
    const auto found = rounds.find({row.block, row.round});
    const std::optional<double> value = log_of(row, metric);
    if (row.gate != Gate::kept || !value || found == rounds.end()) continue;
    blocks[row.block].push_back(*value - found->second);
  }
  return medians(blocks);
}

std::string too_few_samples(const Result& one, const Result& other, const Metric& metric) {
  if (metric.percentile == nullptr) return "";
  std::optional<std::uint64_t> least;  // samples of a block without it
  for (const Result* result : {&one, &other}) {
    bool early = result->blocks.empty();
    for (const BlockRow& row : result->blocks) {
      if (row.*metric.percentile) continue;
      least = std::min(least.value_or(row.samples), row.samples);
      early = early || as_double(row.samples) >= kSamplesForP99;  // more were asked for then
    }
    if (early)
      return fmt::format("no {} of single blocks: measured by an early echolab", metric.title);
  }
  if (!least) return "";
  return fmt::format("too few samples for {}: {} of {:.0f} in a block", metric.title, *least,
                     kSamplesForP99);
}

void judge_cell(CellRecord& cell, const Plan& plan) {
  for (Result& result : cell.results) result.verdicts = {};
  const Result* baseline = cell.row(plan.baseline);
  if (plan.quick || plan.sweep || plan.blocks < 2 || baseline == nullptr) return;
  const Result* copy = cell.row(plan.baseline + kAgain);
  for (const Metric& metric : verdict_metrics()) {
    // At an offered rate all that keep up have the same throughput.
    if (cell.shape.rate > 0 && metric.judgement == &Verdicts::throughput) continue;
    CellJudge(cell, plan, *baseline, copy, metric).run();
  }
}

bool precise(const CellRecord& cell) {
  std::vector<Judgement> all;
  for (const Result& result : cell.results) {
    if (result.verdicts.cpu && unfit(result).empty()) all.push_back(*result.verdicts.cpu);
  }
  return precise(all, kNarrowEnough);
}

std::string interval_text(const Judgement& one) {
  if (!one.low || !one.high) return fmt::format("{:.3f}", one.ratio);
  return fmt::format("{:.3f} [{:.3f}, {:.3f}]", one.ratio, *one.low, *one.high);
}

std::string verdict_text(const Judgement& one) {
  if (one.verdict == Verdict::none) return fmt::format("no verdict: {}", one.why);
  return name_of(one.verdict);
}

std::vector<std::string> overall(const RunRecord& run) {
  std::vector<const CellRecord*> closed;
  for (const CellRecord& cell : run.cells) {
    if (cell.shape.rate == 0) closed.push_back(&cell);
  }
  std::vector<std::string> out;
  if (closed.size() < 2) return out;
  for (const Contender& contender : run.plan.contenders) {
    if (contender.name == run.plan.baseline) continue;
    std::vector<double> cpu, throughput;
    for (const CellRecord* cell : closed) {
      const Result* result = cell->row(contender.name);
      if (result == nullptr || !unfit(*result).empty()) continue;
      const Summary& s = result->summary;
      if (s.ratio_cpu && *s.ratio_cpu > 0) cpu.push_back(*s.ratio_cpu);
      if (s.ratio_throughput && *s.ratio_throughput > 0) throughput.push_back(*s.ratio_throughput);
    }
    if (cpu.size() < closed.size() || throughput.size() < closed.size()) continue;
    out.push_back(fmt::format("{}: CPU x {:.2f}, req/s x {:.2f}", contender.name,
                              geometric_mean(cpu), geometric_mean(throughput)));
  }
  return out;
}

}  // namespace echolab::harness
