#include "harness/verdict_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "harness/explain.hpp"
#include "harness/table.hpp"
#include "harness/verdicts.hpp"

namespace echolab::harness {
namespace {

using Row = std::vector<std::string>;

bool judged(const Result& result) {
  return result.verdicts.cpu || result.verdicts.throughput || result.verdicts.p99;
}

bool judged(const CellRecord& cell) {
  return std::any_of(cell.results.begin(), cell.results.end(),
                     [](const Result& result) { return judged(result); });
}

// At an offered rate all that keep up have the same throughput.
std::vector<const Metric*> shown(const CellRecord& cell) {
  std::vector<const Metric*> out;
  for (const Metric& metric : verdict_metrics()) {
    if (cell.shape.rate > 0 && metric.judgement == &Verdicts::throughput) continue;
    out.push_back(&metric);
  }
  return out;
}

// A verdict that fits in a narrow column: instead of its reason, what could have been seen.
std::string short_verdict(const Judgement& one) {
  if (one.verdict != Verdict::none) return name_of(one.verdict);
  if (!one.smallest_effect) return "none";
  return fmt::format("none ({:.0f} %)", *one.smallest_effect * 100);
}

Row headings(const CellRecord& cell, const Plan& plan) {
  Row out{"against " + plan.baseline};
  for (const Metric* metric : shown(cell)) {
    out.push_back(fmt::format("{} x", metric->title));
    if (judged(cell)) out.emplace_back("verdict");
  }
  for (const char* title : {"calls", "wakes", "ctx", "wait"}) out.emplace_back(title);
  return out;
}

Row row_of(const CellRecord& cell, const Result& result, bool baseline, bool in_short) {
  Row row{result.variant};
  for (const Metric* metric : shown(cell)) {
    const std::optional<Judgement>& one = result.verdicts.*metric->judgement;
    const std::optional<double>& ratio = result.summary.*metric->ratio;
    if (baseline) {
      row.emplace_back("1");
    } else if (one) {
      row.push_back(interval_text(*one));
    } else {
      row.push_back(ratio ? fmt::format("{:.2f}", *ratio) : "-");
    }
    if (!judged(cell)) continue;
    if (baseline) {
      row.emplace_back("");
    } else {
      row.push_back(!one ? "-" : in_short ? short_verdict(*one) : verdict_text(*one));
    }
  }
  const Summary& s = result.summary;
  for (const std::optional<double>& value : {s.syscalls_per_request, s.wakeups_per_request,
                                             switches_per_request(s), s.run_delay_us_per_request}) {
    row.push_back(figure(value));
  }
  return row;
}

std::vector<Row> rows_of(const RunRecord& run, const CellRecord& cell, bool in_short) {
  std::vector<Row> rows;
  for (const Result& result : cell.results) {
    if (result.slices.empty()) continue;  // only a note
    rows.push_back(row_of(cell, result, result.variant == run.plan.baseline, in_short));
  }
  return rows;
}

// Why there are no verdicts but for noise, on figures other than CPU, of which the sentences tell;
// each reason once.
std::vector<std::string> reasons(const CellRecord& cell) {
  std::map<std::string, std::vector<std::string>> of;
  for (const Metric& metric : verdict_metrics()) {
    if (metric.judgement == &Verdicts::cpu) continue;
    for (const Result& result : cell.results) {
      const std::optional<Judgement>& one = result.verdicts.*metric.judgement;
      if (!one || one->why.empty() || one->smallest_effect) continue;
      const bool said = !result.no_verdict.empty() || result.variant.ends_with(kAgain);
      if (said) continue;
      of[fmt::format("no verdict on {}: {}", metric.title, one->why)].push_back(result.variant);
    }
  }
  std::vector<std::string> out;
  for (const auto& [reason, variants] : of) {
    out.push_back(fmt::format("{} ({})", reason, fmt::join(variants, ", ")));
  }
  return out;
}

}  // namespace

std::string aligned(const std::vector<Row>& rows) {
  std::vector<std::size_t> widths(rows.front().size());
  for (const Row& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const Row& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += fmt::format("{:<{}} ", row[i], widths[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

std::string terminal_verdicts(const RunRecord& run, const CellRecord& cell) {
  std::vector<Row> rows = rows_of(run, cell, true);
  if (rows.empty()) return "";
  rows.insert(rows.begin(), headings(cell, run.plan));
  std::string out = fmt::format("\n{}", aligned(rows));
  for (const Result& result : cell.results) {
    const std::string why = explain(run, cell, result);
    if (!why.empty()) out += fmt::format("  {}: {}\n", result.variant, why);
  }
  for (const std::string& reason : reasons(cell)) out += "  " + reason + "\n";
  return out;
}

std::string markdown_verdicts(const RunRecord& run, const CellRecord& cell) {
  const std::vector<Row> rows = rows_of(run, cell, false);
  if (rows.empty()) return "";
  Row heading = headings(cell, run.plan);
  heading.emplace_back("why");
  heading.front() = markdown_text(heading.front());
  std::string out =
      fmt::format("\n{}{}", markdown_row(heading), markdown_row(Row(heading.size(), ":--")));
  auto row = rows.begin();
  for (const Result& result : cell.results) {
    if (result.slices.empty()) continue;
    Row safe;
    for (const std::string& text : *row) safe.push_back(markdown_text(text));
    safe.push_back(markdown_text(explain(run, cell, result)));
    out += markdown_row(safe);
    ++row;
  }
  return out;
}

std::vector<std::string> verdict_legend(const RunRecord& run) {
  std::vector<std::string> out{
      "x: ratio to the baseline, paired within rounds (p99: within blocks), "
      "median over blocks.",
      "calls, wakes: the server's system calls and wake-ups per request, counted by itself. ctx: "
      "its context switches per request. wait: us per request that its threads could run and had "
      "no CPU."};
  if (!std::any_of(run.cells.begin(), run.cells.end(),
                   [](const CellRecord& cell) { return judged(cell); })) {
    return out;
  }
  out.emplace_back(
      "in brackets: the 95 % interval over blocks of fresh processes. faster, slower: it lies "
      "wholly beyond 1 +- delta; equivalent: wholly within the least delta. delta: 2 % CPU, 5 % "
      "req/s, 10 % p99, "
      "or what the baseline's second copy (A/A) shows as noise, if that is more. Among several "
      "variants: Holm's correction. none (4 %), could have seen 4 %: no verdict, a smaller "
      "difference could not have been told from noise.");
  out.emplace_back(
      "about 40 % of it: the difference in counts, times what the probe measured that a system "
      "call and a wake-up cost on this machine: a guide, no measurement. beside: another row of "
      "the "
      "cell has as few or as many without the effect, so that this is no cause.");
  return out;
}

}  // namespace echolab::harness
