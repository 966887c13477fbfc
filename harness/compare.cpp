#include "harness/compare.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "harness/environment.hpp"
#include "harness/explain.hpp"
#include "harness/table.hpp"
#include "harness/units.hpp"
#include "harness/verdicts.hpp"

namespace echolab::harness {
namespace {

// Steal that differs by more than this share of the CPUs' time makes throughput incomparable.
constexpr double kStealDifference = 0.05;
// A field that is already among the differences keeps its first weight and meaning.
void differ(Comparison& out, const std::string& field, const std::string& a, const std::string& b,
            bool doubtful, const std::string& meaning) {
  const bool known = std::any_of(out.differences.begin(), out.differences.end(),
                                 [&](const Difference& d) { return d.field == field; });
  if (a == b || known) return;
  const bool perhaps = a == "unknown" || b == "unknown";
  out.differences.push_back({field, a, b, doubtful, (perhaps ? "perhaps " : "") + meaning});
}

// ---- circumstances ------------------------------------------------------------------------------

// A field that is an object is compared member by member, so that the line names what differs.
void compare_field(Comparison& out, const nlohmann::json& a, const nlohmann::json& b,
                   const Comparable& field) {
  const nlohmann::json::json_pointer where(field.pointer);
  const nlohmann::json empty = nlohmann::json::object();
  const nlohmann::json& in_a = a.contains(where) ? a[where] : empty;
  const nlohmann::json& in_b = b.contains(where) ? b[where] : empty;
  const bool doubtful = field.weight == Weight::doubtful;
  if (!in_a.is_object() || !in_b.is_object()) {
    return differ(out, field.pointer, fact(a, field.pointer), fact(b, field.pointer), doubtful,
                  field.meaning);
  }
  std::vector<std::string> names;
  for (const auto& item : in_a.items()) names.push_back(item.key());
  for (const auto& item : in_b.items()) names.push_back(item.key());
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  for (const std::string& name : names) {
    const std::string pointer = (where / name).to_string();
    differ(out, pointer, fact(a, pointer.c_str()), fact(b, pointer.c_str()), doubtful,
           field.meaning);
  }
}

// Why a run has no blocks whose intervals could be compared; empty if it has.
std::string without_blocks(const RunRecord& run) {
  if (run.version == 1) return "is of schema version 1, which has no blocks";
  if (run.plan.quick) return "is a quick run";
  if (run.plan.blocks < 2) return "started its servers once";
  return "";
}

std::string yes_no(bool value) {
  return value ? "yes" : "no";
}

void compare_plans(Comparison& out, const RunRecord& a, const RunRecord& b) {
  const auto number = [](auto value) { return fmt::format("{}", value); };
  differ(out, "placement", a.placement.used, b.placement.used, true,
         "client and server share a CPU in one of the two only");
  differ(out, "placement: server CPUs", number(a.placement.server_cpus.size()),
         number(b.placement.server_cpus.size()), true, "servers had another number of CPUs");
  differ(out, "plan: threads", number(a.plan.threads), number(b.plan.threads), true,
         "servers ran another number of loops");
  differ(out, "plan: slice", format_duration(a.plan.slice), format_duration(b.plan.slice), true,
         "slices of another length weigh their ends differently");
  differ(out, "plan: slices", number(a.plan.slices), number(b.plan.slices), false,
         "the run with fewer slices is noisier");
  if (without_blocks(a).empty() && without_blocks(b).empty()) {
    differ(out, "plan: blocks", number(a.plan.blocks), number(b.plan.blocks), false,
           "the run with fewer blocks has wider intervals");
  }
  differ(out, "plan: warm-up slices", number(a.plan.warm_up), number(b.plan.warm_up), false,
         "servers and connections are not equally warm");
  differ(out, "plan: baseline", a.plan.baseline, b.plan.baseline, false,
         "ratios within the runs refer to different servers");
  differ(out, "plan: quick", yes_no(a.plan.quick), yes_no(b.plan.quick), true,
         "a quick run has numbers, never a verdict");
  if (std::abs(a.steal.median_share - b.steal.median_share) > kStealDifference) {
    differ(out, "steal", fmt::format("{:.1f} %", a.steal.median_share * 100),
           fmt::format("{:.1f} %", b.steal.median_share * 100), true,
           "the hypervisor took more time away in one of the two");
  }
}

std::string granted(const VariantRecord& variant) {
  std::vector<std::string> names;
  for (const FeatureRecord& f : variant.features) {
    if (f.granted) names.push_back(f.name);
  }
  std::sort(names.begin(), names.end());
  return names.empty() ? "none" : fmt::format("{}", fmt::join(names, " "));
}

// Whether it ever ran: only then its features are known.
bool started(const RunRecord& run, const VariantRecord& variant) {
  if (!variant.features.empty()) return true;
  for (const CellRecord& cell : run.cells) {
    for (const Result& result : cell.results) {
      if (result.variant == variant.name && !result.slices.empty()) return true;
    }
  }
  return false;
}

void compare_variants(Comparison& out, const RunRecord& a, const RunRecord& b) {
  for (const VariantRecord& in_a : a.variants) {
    for (const VariantRecord& in_b : b.variants) {
      if (in_a.name != in_b.name) continue;
      differ(out, in_a.name + ": command", in_a.command, in_b.command, true,
             "the name stands for another server");
      if (!started(a, in_a) || !started(b, in_b)) continue;
      differ(out, in_a.name + ": granted", granted(in_a), granted(in_b), true,
             "the kernel granted other features");
    }
  }
}

bool is_machine(const Difference& d) {
  return d.field.starts_with("/machine/");
}

void compare_circumstances(Comparison& out, const RunRecord& a, const RunRecord& b) {
  for (const Comparable& field : comparable_fields()) {
    compare_field(out, a.environment, b.environment, field);
  }
  compare_plans(out, a, b);
  compare_variants(out, a, b);
  const auto rank = [](const Difference& d) { return d.doubtful ? (is_machine(d) ? 0 : 1) : 2; };
  std::stable_sort(out.differences.begin(), out.differences.end(),
                   [&](const Difference& x, const Difference& y) { return rank(x) < rank(y); });
  out.other_machine = std::any_of(out.differences.begin(), out.differences.end(),
                                  [](const Difference& d) { return d.doubtful && is_machine(d); });
}

// ---- numbers ------------------------------------------------------------------------------------

template <class List, class Same>
auto find(const List& list, Same same) -> decltype(&*list.begin()) {
  const auto found = std::find_if(list.begin(), list.end(), same);
  return found == list.end() ? nullptr : &*found;
}

// Two copies of one server in one run.
Estimate copies(const CellRecord& cell, const std::string& baseline, const Metric& metric) {
  const Result *one = cell.row(baseline), *two = cell.row(baseline + kAgain);
  if (one == nullptr || two == nullptr) return {};
  const std::vector<double> values = block_ratios(*two, *one, metric);
  return values.empty() ? Estimate{} : estimate_median(values);
}

// One row in both runs, and the cells that it stands in.
struct Twin {
  const CellRecord *cell_a, *cell_b;
  const Result *a, *b;
  ComparedRow* row;
};

const Pair& pair_of(const ComparedRow& row, const Metric& metric) {
  if (metric.judgement == &Verdicts::cpu) return row.server_cpu_us_per_request;
  if (metric.judgement == &Verdicts::throughput) return row.requests_per_s;
  return row.p99_us;
}

// Judges one figure of all rows: they are one family, because any of them may fail the whole.
void judge_all(const Metric& metric, const std::vector<Twin>& twins, const RunRecord& a,
               const RunRecord& b, std::optional<double> limit) {
  std::vector<Judgement*> family;
  for (const Twin& twin : twins) {
    if (twin.cell_a->shape.rate > 0 && metric.judgement == &Verdicts::throughput) continue;
    // What is not printed has no verdict either: percentiles of slices, say, mean little where the
    // row is too small to have its own.
    if (!pair_of(*twin.row, metric).ratio()) continue;
    const std::vector<double> in_a = block_values(*twin.a, metric);
    const std::vector<double> in_b = block_values(*twin.b, metric);
    const bool any = !in_a.empty() && !in_b.empty();
    const std::string few = too_few_samples(*twin.a, *twin.b, metric);
    if (!any && few.empty()) continue;
    const Estimate copies_a = copies(*twin.cell_a, a.plan.baseline, metric);
    const Estimate copies_b = copies(*twin.cell_b, b.plan.baseline, metric);
    const std::optional<Interval> noise_a = copies_a.interval(), noise_b = copies_b.interval();
    Delta delta = delta_with(metric.delta, noise_a);
    delta.apart =
        std::max({delta.apart, delta_with(metric.delta, noise_b).apart, limit.value_or(0)});
    std::optional<Judgement>& slot = twin.row->verdicts.*metric.judgement;
    slot = judge(any ? estimate_shift(in_a, in_b) : Estimate{}, delta, metric.better, twins.size());
    if (!any) slot->ratio = *twin.row->p99_us.ratio();  // of all blocks together
    const auto withhold = [&](const std::string& why) {
      slot->verdict = Verdict::none;
      slot->why = why;
    };
    if (!slot->smallest_effect && !few.empty()) {
      withhold(few);
    } else if (!noise_a || !noise_b) {
      withhold(fmt::format("no A/A in {}", noise_a ? "B" : "A"));
    } else if (copies_differ(copies_a, metric.delta) || copies_differ(copies_b, metric.delta)) {
      withhold("too noisy: A/A differs");
    } else {
      family.push_back(&*slot);
    }
  }
  settle(family);
  for (const Twin& twin : twins) {
    const std::optional<Judgement>& one = twin.row->verdicts.*metric.judgement;
    if (!limit || !one || one->verdict != Verdict::slower) continue;
    twin.row->worse.push_back(fmt::format("{} x {}", metric.title, interval_text(*one)));
  }
}

ComparedRow compare_row(const Result& a, const Result& b, const std::string& why_not) {
  ComparedRow row;
  row.variant = a.variant;
  row.requests_per_s = {a.summary.requests_per_s, b.summary.requests_per_s};
  row.server_cpu_us_per_request = {a.summary.server_cpu_us_per_request,
                                   b.summary.server_cpu_us_per_request};
  row.p99_us = {a.summary.p99_us, b.summary.p99_us};
  const auto unfit = [&](const char* name, const Result& result) {
    if (!row.unfit.empty()) return;
    if (!result.error.empty()) row.unfit = fmt::format("failed in {}", name);
    if (row.unfit.empty() && !result.no_verdict.empty()) {
      row.unfit = fmt::format("no verdict possible in {}: {}", name, result.no_verdict);
    }
  };
  unfit("A", a);
  unfit("B", b);
  if (row.unfit.empty() && !row.server_cpu_us_per_request.ratio() && !row.requests_per_s.ratio()) {
    const bool in_a = a.summary.requests_per_s.has_value();
    row.unfit = fmt::format("not measured in {}", in_a ? "B" : "A");
  }
  if (row.unfit.empty()) row.unfit = why_not;
  return row;
}

// What a reader of any comparison with this run must know first.
void remark(Comparison& out, const char* name, const RunRecord& run) {
  const auto say = [&](bool is, const std::string& what) {
    if (is) out.remarks.push_back(fmt::format("{} {}", name, what));
  };
  const std::string without = without_blocks(run);
  say(run.partial, "is partial: it was interrupted");
  say(run.cells.empty(), "is empty: it has no results");
  say(!without.empty(), without + ": it has numbers, never a verdict");
}

// Why no row can be judged, whatever it is; empty if some can.
std::string why_none(const Comparison& c, const RunRecord& a, const RunRecord& b) {
  if (c.other_machine) return "another machine";
  if (const std::string why = without_blocks(a); !why.empty()) return "A " + why;
  if (const std::string why = without_blocks(b); !why.empty()) return "B " + why;
  return "";
}

void compare_cells(Comparison& out, const RunRecord& a, const RunRecord& b,
                   std::optional<double> limit) {
  out.unfit = why_none(out, a, b);
  std::vector<Twin> twins;
  out.cells.reserve(a.cells.size());  // their rows are pointed to
  for (const CellRecord& cell_a : a.cells) {
    const auto* cell_b =
        find(b.cells, [&](const CellRecord& c) { return c.shape == cell_a.shape; });
    if (cell_b == nullptr) {
      out.only_a.push_back(cell_a.shape.name());
      continue;
    }
    ComparedCell& cell = out.cells.emplace_back(ComparedCell{cell_a.shape, {}});
    cell.rows.reserve(cell_a.results.size());  // rows are pointed to
    for (const Result& in_a : cell_a.results) {
      if (in_a.variant.ends_with(kAgain)) continue;
      const Result* in_b = cell_b->row(in_a.variant);
      const std::string name = in_a.variant + "/" + cell_a.shape.name();
      if (in_b == nullptr) {
        out.only_a.push_back(name);
        continue;
      }
      if (in_a.error.empty() && !in_b->error.empty()) out.failed_in_b.push_back(name);
      cell.rows.push_back(compare_row(in_a, *in_b, out.unfit));
      if (cell.rows.back().unfit.empty()) {
        twins.push_back({&cell_a, cell_b, &in_a, in_b, &cell.rows.back()});
      }
    }
    for (const Result& in_b : cell_b->results) {
      if (!in_b.variant.ends_with(kAgain) && cell_a.row(in_b.variant) == nullptr) {
        out.only_b.push_back(in_b.variant + "/" + cell_a.shape.name());
      }
    }
  }
  for (const CellRecord& cell_b : b.cells) {
    if (find(a.cells, [&](const CellRecord& c) { return c.shape == cell_b.shape; }) == nullptr) {
      out.only_b.push_back(cell_b.shape.name());
    }
  }
  for (const Metric& metric : verdict_metrics()) judge_all(metric, twins, a, b, limit);
  for (const Twin& twin : twins) {
    twin.row->explanation =
        explain_change(a, twin.cell_a->shape, *twin.a, *twin.b, twin.row->verdicts);
  }
}

}  // namespace

std::optional<double> Pair::ratio() const {
  if (!a || !b || !(*a > 0)) return std::nullopt;
  return *b / *a;
}

bool Comparison::regressed() const {
  if (!failed_in_b.empty()) return true;
  for (const ComparedCell& cell : cells) {
    for (const ComparedRow& row : cell.rows) {
      if (!row.worse.empty()) return true;
    }
  }
  return false;
}

std::size_t Comparison::rows() const {
  std::size_t all = 0;
  for (const ComparedCell& cell : cells) all += cell.rows.size();
  return all;
}

std::size_t Comparison::judged() const {
  std::size_t rows = 0;
  for (const ComparedCell& cell : cells) {
    rows += static_cast<std::size_t>(
        std::count_if(cell.rows.begin(), cell.rows.end(),
                      [](const ComparedRow& row) { return row.unfit.empty(); }));
  }
  return rows;
}

std::size_t Comparison::decided() const {
  const auto sure = [](const std::optional<Judgement>& one) {
    return one && one->verdict != Verdict::none;
  };
  std::size_t rows = 0;
  for (const ComparedCell& cell : cells) {
    for (const ComparedRow& row : cell.rows) {
      if (sure(row.verdicts.cpu) || sure(row.verdicts.throughput)) ++rows;
    }
  }
  return rows;
}

std::size_t Comparison::decided_p99() const {
  std::size_t count = 0;
  for (const ComparedCell& cell : cells) {
    for (const ComparedRow& row : cell.rows) {
      if (row.verdicts.p99 && row.verdicts.p99->verdict != Verdict::none) ++count;
    }
  }
  return count;
}

std::vector<std::string> Comparison::may_be_worse() const {
  std::vector<std::string> out;
  for (const ComparedCell& cell : cells) {
    for (const ComparedRow& row : cell.rows) {
      for (const Metric& metric : verdict_metrics()) {
        const std::optional<Judgement>& one = row.verdicts.*metric.judgement;
        if (!one || one->verdict != Verdict::none) continue;
        if (!harness::may_be_worse(*one, metric.better)) continue;
        out.push_back(fmt::format("{}/{} {}", row.variant, cell.shape.name(), metric.title));
      }
    }
  }
  return out;
}

std::vector<std::string> Comparison::gaps() const {
  std::vector<std::string> out;
  if (judged() == 0) out.emplace_back("nothing was compared: no row is fit for it in both runs");
  if (judged() > 0 && decided() == 0) out.emplace_back("too noisy: no row has a verdict");
  if (!only_a.empty()) out.push_back(fmt::format("B lacks {}", fmt::join(only_a, ", ")));
  if (partial) out.emplace_back("an interrupted run was compared");
  return out;
}

Comparison compare(const RunRecord& a, const RunRecord& b, std::optional<double> limit) {
  Comparison out;
  compare_circumstances(out, a, b);
  out.partial = a.partial || b.partial;
  remark(out, "A", a);
  remark(out, "B", b);
  compare_cells(out, a, b, limit);
  return out;
}

}  // namespace echolab::harness
