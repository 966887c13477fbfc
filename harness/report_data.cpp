#include "harness/report_data.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "harness/explain.hpp"
#include "harness/process.hpp"
#include "harness/ratio.hpp"
#include "harness/report_sources.hpp"
#include "harness/result_record.hpp"
#include "harness/seam.hpp"
#include "harness/sweep.hpp"
#include "harness/table.hpp"
#include "harness/units.hpp"
#include "harness/verdicts.hpp"

namespace echolab::harness {
namespace {

using Json = nlohmann::ordered_json;

// What is drawn and not printed: finer than a pixel, and the page stays small by it.
double shortened(double value) {
  return std::strtod(fmt::format("{:.4g}", value).c_str(), nullptr);
}

// The figure that every slice shows, in the unit of the summary: us, requests/s, us.
struct SliceFigure {
  const char* name;
  double steps;  // per factor e: 500 are 0.2 % each, and a p99 of few requests is not that good
  std::optional<double> (*of)(const SliceRow&);
};
constexpr SliceFigure kSliceFigures[] = {
    {"cpu", 500,
     [](const SliceRow& row) {
       return ratio(as_double(row.server_cpu_ns) / 1e3, as_double(row.requests));
     }},
    {"throughput", 500,
     [](const SliceRow& row) {
       return ratio(as_double(row.requests) * 1e9, as_double(row.elapsed_ns));
     }},
    {"p99", 50,
     [](const SliceRow& row) -> std::optional<double> { return as_double(row.p99_ns) / 1e3; }}};

// Runs of equal values as [value, how many]: blocks and gates hardly ever change.
template <class Of>
Json run_lengths(const std::vector<SliceRow>& slices, Of of) {
  Json out = Json::array();
  for (const SliceRow& row : slices) {
    const auto value = static_cast<unsigned>(of(row));
    if (out.empty() || out.back()[0] != value) out.push_back({value, 0});
    out.back()[1] = out.back()[1].get<unsigned>() + 1;
  }
  return out;
}

// A column of numbers as text: two digits of base 64 for each, which compress to little more than
// what the noise in them takes. kAbsent is no value.
constexpr std::string_view kDigits =
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";
constexpr long kSteps = 64 * 64;  // of a column: the center is in the middle
constexpr const char* kAbsent = "  ";

std::string digits(double steps) {
  const long step = std::clamp(std::lround(std::clamp<double>(steps, -kSteps, kSteps)) + kSteps / 2,
                               0L, kSteps - 1);
  return {kDigits[static_cast<std::size_t>(step / 64)],
          kDigits[static_cast<std::size_t>(step % 64)]};
}

Json slice_values(const std::vector<SliceRow>& slices, const SliceFigure& figure) {
  std::optional<double> center;
  std::string steps;
  for (const SliceRow& row : slices) {
    const std::optional<double> value = figure.of(row);
    const bool known = value && *value > 0;
    if (known && !center) center = shortened(*value);
    steps += known ? digits(figure.steps * std::log(*value / *center)) : kAbsent;
  }
  if (!center) return nullptr;
  return {{"center", *center}, {"steps_per_e", figure.steps}, {"steps", std::move(steps)}};
}

Json slice_columns(const Result& result) {
  Json out{{"blocks", run_lengths(result.slices, [](const SliceRow& row) { return row.block; })},
           {"gates", run_lengths(result.slices, [](const SliceRow& row) { return row.gate; })}};
  for (const SliceFigure& figure : kSliceFigures) {
    out[figure.name] = slice_values(result.slices, figure);
  }
  return out;
}

Json curve_of(const Histogram& latency) {
  Json out = Json::array();
  for (int i = 0;; ++i) {
    const double q = 1 - std::pow(10.0, -static_cast<double>(i) / kCurvePerDecade);
    const std::optional<std::uint64_t> value = latency.supported_quantile(q);
    if (!value) return out;
    out.push_back(shortened(as_double(*value) / 1e3));
  }
}

Json judgement_of(const Judgement& one) {
  Json out{{"verdict", name_of(one.verdict)},
           {"ratio", rounded(one.ratio)},
           {"delta", rounded(one.delta)}};
  if (one.low && one.high) out["interval"] = {rounded(*one.low), rounded(*one.high)};
  if (!one.why.empty()) out["why"] = one.why;
  return out;
}

bool has_verdicts(const RunRecord& run) {
  return std::any_of(run.cells.begin(), run.cells.end(), [](const CellRecord& cell) {
    return std::any_of(cell.results.begin(), cell.results.end(), [](const Result& result) {
      return result.verdicts.cpu || result.verdicts.throughput || result.verdicts.p99;
    });
  });
}

bool is_control(const VariantRecord& variant) {
  return Contender{variant.name, variant.command}.control();
}

// Whether it can be the best of a cell: not the baseline's second copy, which is noise, no control,
// and nobody whose numbers are not fit for a verdict or, in a run with verdicts, have none.
bool competes(const RunRecord& run, const Result& result, const Metric& metric) {
  if (!result.error.empty() || !result.no_verdict.empty()) return false;
  if (result.variant == run.plan.baseline) return true;
  if (result.variant.ends_with(kAgain)) return false;
  for (const VariantRecord& variant : run.variants) {
    if (variant.name == result.variant && is_control(variant)) return false;
  }
  const std::optional<Judgement>& judgement = result.verdicts.*metric.judgement;
  return judgement ? judgement->verdict != Verdict::none : !has_verdicts(run);
}

// Every figure against the baseline and against the best of the cell.
Json comparisons_of(const RunRecord& run, const CellRecord& cell, const Result& result) {
  Json out = Json::object();
  for (const Metric& metric : verdict_metrics()) {
    const std::optional<double>& own = result.summary.*metric.ratio;
    if (!own || !(*own > 0)) continue;
    double best = *own;
    for (const Result& other : cell.results) {
      const std::optional<double>& value = other.summary.*metric.ratio;
      if (!value || !(*value > 0) || !competes(run, other, metric)) continue;
      best = metric.better == Better::less ? std::min(best, *value) : std::max(best, *value);
    }
    Json& one = out[metric.name];
    one = {{"ratio", rounded(*own)}, {"to_best", rounded(*own / best)}};
    const std::optional<Judgement>& judgement = result.verdicts.*metric.judgement;
    if (judgement) one.update(judgement_of(*judgement));
  }
  return out;
}

Json gates_of(const Result& result) {
  Json out = Json::array();
  for (const GateResult& gate : result.gates) {
    out.push_back({{"gate", gate.gate},
                   {"limit", rounded(gate.limit)},
                   {"worst", gate.worst ? Json(rounded(*gate.worst)) : Json(nullptr)},
                   {"dropped", gate.dropped},
                   {"passed", gate.passed}});
  }
  return out;
}

Json result_of(const RunRecord& run, const CellRecord& cell, const Result& result) {
  Json figures = Json::object(), kinds = Json::object();
  for (const SummaryField& field : summary_fields()) {
    const std::optional<double>& value = result.summary.*field.value;
    if (value) figures[field.name] = rounded(*value);
  }
  for (const auto& [kind, calls] : result.summary.syscalls_by_kind) kinds[kind] = rounded(calls);
  Json out{{"variant", result.variant},
           {"figures", std::move(figures)},
           {"syscalls_by_kind", std::move(kinds)},
           {"against", comparisons_of(run, cell, result)},
           {"explanation", explain(run, cell, result)},
           {"gates", gates_of(result)},
           {"curve", curve_of(result.latency)},
           {"slices", slice_columns(result)}};
  if (!result.error.empty()) out["error"] = result.error;
  if (!result.no_verdict.empty()) out["no_verdict"] = result.no_verdict;
  if (result.raw) out["raw_curve"] = curve_of(*result.raw);
  return out;
}

Json seam_of(const CellRecord& cell) {
  Json out = Json::array();
  for (const Seam& seam : cell.seams) {
    Json one{{"backend", seam.backend}, {"control", seam.control}};
    if (seam.ratio) one["ratio"] = rounded(*seam.ratio);
    if (seam.low && seam.high) one["interval"] = {rounded(*seam.low), rounded(*seam.high)};
    if (!seam.why.empty()) one["why"] = seam.why;
    out.push_back(std::move(one));
  }
  return out;
}

Json sweeps_of(const RunRecord& run) {
  Json out = Json::array();
  for (const SweepRecord& sweep : run.sweeps) {
    Json highest = Json::object();
    for (const SweepResult& result : sweep.results) {
      if (result.highest_rate_per_s) highest[result.variant] = rounded(*result.highest_rate_per_s);
    }
    out.push_back({{"connections", sweep.connections},
                   {"size_bytes", sweep.size},
                   {"percentile", sweep.percentile},
                   {"limit_us", as_double(sweep.limit_ns) / 1e3},
                   {"highest_rate_per_s", std::move(highest)},
                   {"title", sweep_title(sweep)},
                   {"lines", sweep_lines(sweep)}});
  }
  return out;
}

Json cell_of(const RunRecord& run, const CellRecord& cell) {
  Json results = Json::array();
  for (const Result& result : cell.results) results.push_back(result_of(run, cell, result));
  std::vector<std::string> notes = notes_of(cell, run.plan);
  std::erase(notes, seam_line(cell));  // has a table of its own
  return {{"title", cell_title(cell.shape)}, {"connections", cell.shape.connections},
          {"size_bytes", cell.shape.size},   {"size", format_size(cell.shape.size)},
          {"depth", cell.shape.depth},       {"rate_per_s", rounded(cell.shape.rate)},
          {"notes", std::move(notes)},       {"results", std::move(results)},
          {"seam", seam_of(cell)},           {"section_costs", section_costs(cell)}};
}

Json metrics() {
  constexpr const char* kUnits[] = {"\u00b5s", "/s", "\u00b5s"};
  constexpr const char* kFigures[] = {"server_cpu_us_per_request", "requests_per_s", "p99_us"};
  Json out = Json::array();
  for (std::size_t i = 0; i < verdict_metrics().size(); ++i) {
    const Metric& metric = verdict_metrics()[i];
    out.push_back({{"name", metric.name},
                   {"title", metric.title},
                   {"unit", kUnits[i]},
                   {"figure", kFigures[i]},
                   {"less_is_better", metric.better == Better::less},
                   {"delta", metric.delta}});
  }
  return out;
}

}  // namespace

std::string date_text(const std::string& started) {
  constexpr const char* kMonths[] = {"January",   "February", "March",    "April",
                                     "May",       "June",     "July",     "August",
                                     "September", "October",  "November", "December"};
  int year = 0, month = 0, day = 0, hour = 0, minute = 0;
  if (std::sscanf(started.c_str(), "%4d-%2d-%2dT%2d:%2d", &year, &month, &day, &hour, &minute) !=
          5 ||
      month < 1 || month > 12) {
    return started;
  }
  return fmt::format("{} {} {}, {:02}:{:02} UTC", day, kMonths[month - 1], year, hour, minute);
}

std::string statement(const RunRecord& run) {
  return fmt::format(
      "Measured on {} in {}: {}. Servers on CPU {}, the client on CPU {}. Every ratio is to {}.",
      date_text(run.started),
      format_duration(std::chrono::nanoseconds(
          static_cast<std::int64_t>(std::clamp(run.duration_s, 0.0, 1e9) * 1e9))),
      preamble(run).front(), cpu_list(run.placement.server_cpus),
      cpu_list(run.placement.client_cpus), run.plan.baseline);
}

std::vector<std::string> warnings(const RunRecord& run) {
  std::vector<std::string> out;
  if (run.cells.empty()) {
    out.emplace_back("Empty run: nothing was measured.");
  } else if (run.partial) {
    out.push_back(fmt::format(
        "Partial run: {}. What is here was measured, the rest was not.",
        run.plan.sweep ? "it was interrupted, or its time was up" : "it was interrupted"));
  }
  if (run.plan.quick) {
    out.emplace_back("Quick run: numbers, never a verdict.");
  } else if (!run.cells.empty() && !has_verdicts(run)) {
    out.emplace_back(
        "No verdicts: this run has no blocks of fresh processes to judge by. Its ratios may be "
        "noise.");
  }
  std::size_t rows = 0, unfit = 0;
  for (const CellRecord& cell : run.cells) {
    for (const Result& result : cell.results) {
      ++rows;
      if (!result.no_verdict.empty()) ++unfit;
      if (!result.error.empty()) {
        out.push_back(fmt::format("{} failed at {}: {}", result.variant, cell_title(cell.shape),
                                  result.error));
      }
    }
  }
  if (unfit > 0) {
    out.push_back(
        fmt::format("{} of {} rows failed their gates: their numbers are not fit for a "
                    "verdict, and grey.",
                    unfit, rows));
  }
  return out;
}

Json report_data(const RunRecord& run) {
  Json variants = Json::array(), cells = Json::array();
  for (const VariantRecord& v : run.variants) {
    variants.push_back({{"name", v.name},
                        {"copy", v.name.ends_with(kAgain)},
                        {"control", is_control(v)},
                        {"command", v.command},
                        {"unavailable", v.unavailable}});
  }
  for (const CellRecord& cell : run.cells) cells.push_back(cell_of(run, cell));
  Json gates = Json::array();
  for (std::size_t i = 0; i < kGates; ++i) gates.push_back(name_of(static_cast<Gate>(i)));
  return {{"command", command_text(run)},
          {"baseline", run.plan.baseline},
          {"has_verdicts", has_verdicts(run)},
          {"facts", preamble(run)},
          {"absences", absences(run)},
          {"overall", overall(run)},
          {"metrics", metrics()},
          {"gates", std::move(gates)},
          {"curve_per_decade", kCurvePerDecade},
          {"digits", kDigits},
          {"variants", std::move(variants)},
          {"cells", std::move(cells)},
          {"sweeps", sweeps_of(run)},
          {"environment", run.environment},
          {"sources", report_sources()}};
}

}  // namespace echolab::harness
