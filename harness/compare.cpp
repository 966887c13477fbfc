#include "harness/compare.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "harness/environment.hpp"
#include "harness/table.hpp"
#include "harness/units.hpp"

namespace echolab::harness {
namespace {

using Json = nlohmann::ordered_json;

// Steal that differs by more than this share of the CPUs' time makes throughput incomparable.
constexpr double kStealDifference = 0.05;
constexpr std::size_t kLongestValue = 60;  // characters of a value in the list of differences

std::string clipped(const std::string& text) {
  if (text.size() <= kLongestValue) return text;
  return fmt::format("{}...", std::string_view(text).substr(0, kLongestValue - 3));
}

// A field that is already among the differences keeps its first weight and meaning.
void differ(Comparison& out, const std::string& field, const std::string& a, const std::string& b,
            bool doubtful, const std::string& meaning) {
  const bool known = std::any_of(out.differences.begin(), out.differences.end(),
                                 [&](const Difference& d) { return d.field == field; });
  if (a != b && !known) out.differences.push_back({field, a, b, doubtful, meaning});
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

void judge(ComparedRow& row, double limit) {
  const std::optional<double> cpu = row.server_cpu_us_per_request.ratio();
  if (cpu && *cpu > 1 + limit) {
    row.worse.push_back(fmt::format("{:.1f} % more CPU per request", (*cpu - 1) * 100));
  }
  const std::optional<double> throughput = row.requests_per_s.ratio();
  if (throughput && *throughput < 1 - limit) {
    row.worse.push_back(fmt::format("{:.1f} % less throughput", (1 - *throughput) * 100));
  }
}

ComparedRow compare_row(const Result& a, const Result& b, std::optional<double> limit) {
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
  if (limit && row.unfit.empty()) judge(row, *limit);
  return row;
}

void compare_cells(Comparison& out, const RunRecord& a, const RunRecord& b,
                   std::optional<double> limit) {
  for (const CellRecord& cell_a : a.cells) {
    const auto* cell_b =
        find(b.cells, [&](const CellRecord& c) { return c.shape == cell_a.shape; });
    if (cell_b == nullptr) {
      out.only_a.push_back(cell_a.shape.name());
      continue;
    }
    ComparedCell cell{cell_a.shape, {}};
    for (const Result& in_a : cell_a.results) {
      const auto* in_b =
          find(cell_b->results, [&](const Result& r) { return r.variant == in_a.variant; });
      const std::string name = in_a.variant + "/" + cell_a.shape.name();
      if (in_b == nullptr) {
        out.only_a.push_back(name);
        continue;
      }
      if (in_a.error.empty() && !in_b->error.empty()) out.failed_in_b.push_back(name);
      cell.rows.push_back(compare_row(in_a, *in_b, limit));
    }
    for (const Result& in_b : cell_b->results) {
      if (find(cell_a.results, [&](const Result& r) { return r.variant == in_b.variant; }) ==
          nullptr) {
        out.only_b.push_back(in_b.variant + "/" + cell_a.shape.name());
      }
    }
    out.cells.push_back(std::move(cell));
  }
  for (const CellRecord& cell_b : b.cells) {
    if (find(a.cells, [&](const CellRecord& c) { return c.shape == cell_b.shape; }) == nullptr) {
      out.only_b.push_back(cell_b.shape.name());
    }
  }
}

Json or_null(const std::optional<double>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json pair_json(const Pair& pair) {
  return {{"a", or_null(pair.a)}, {"b", or_null(pair.b)}, {"ratio", or_null(pair.ratio())}};
}

std::string columns_of(const Pair& pair, int digits) {
  const auto value = [&](const std::optional<double>& v) {
    if (!v) return std::string("-");
    return digits < 0 ? figure(v) : fmt::format("{:.{}f}", *v, digits);
  };
  const std::optional<double> ratio = pair.ratio();
  return fmt::format("{:>10} {:>10} {:>6}", value(pair.a), value(pair.b),
                     ratio ? fmt::format("{:.2f}", *ratio) : "-");
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

std::size_t Comparison::judged() const {
  std::size_t rows = 0;
  for (const ComparedCell& cell : cells) {
    rows += static_cast<std::size_t>(
        std::count_if(cell.rows.begin(), cell.rows.end(),
                      [](const ComparedRow& row) { return row.unfit.empty(); }));
  }
  return rows;
}

std::vector<std::string> Comparison::gaps() const {
  std::vector<std::string> out;
  if (judged() == 0) out.emplace_back("nothing was compared: no row is fit for it in both runs");
  if (!only_a.empty()) out.push_back(fmt::format("B lacks {}", fmt::join(only_a, ", ")));
  if (partial) out.emplace_back("an interrupted run was compared");
  return out;
}

Comparison compare(const RunRecord& a, const RunRecord& b, std::optional<double> limit) {
  Comparison out;
  compare_circumstances(out, a, b);
  out.partial = a.partial || b.partial;
  if (a.partial) out.remarks.emplace_back("A is partial: it was interrupted");
  if (b.partial) out.remarks.emplace_back("B is partial: it was interrupted");
  compare_cells(out, a, b, limit);
  return out;
}

std::string to_text(const Comparison& c, const std::string& name_a, const std::string& name_b,
                    std::optional<double> limit) {
  std::string out = fmt::format("A: {}\nB: {}\n", name_a, name_b);
  for (const std::string& remark : c.remarks) out += remark + "\n";
  if (c.other_machine) {
    out +=
        "The machine differs: absolute numbers cannot be compared, only what they show within "
        "each run.\n";
  }
  if (c.differences.empty()) out += "Same circumstances in every field that is known to matter.\n";
  for (const Difference& d : c.differences) {
    out += fmt::format("  {} {}: {} -> {}: {}\n", d.doubtful ? "DOUBTFUL" : "note    ", d.field,
                       clipped(d.a), clipped(d.b), d.meaning);
  }
  std::size_t width = std::string_view("variant").size();
  for (const ComparedCell& cell : c.cells) {
    for (const ComparedRow& row : cell.rows) width = std::max(width, row.variant.size());
  }
  for (const ComparedCell& cell : c.cells) {
    out += fmt::format("\n{}\n", cell_title(cell.shape));
    if (cell.rows.empty()) {
      out += "  no server in common\n";
      continue;
    }
    out += fmt::format("{:<{}}  {:>10} {:>10} {:>6}  {:>10} {:>10} {:>6}  {:>10} {:>10} {:>6}\n",
                       "variant", width, "req/s A", "B", "B/A", "CPU us A", "B", "B/A", "p99 us A",
                       "B", "B/A");
    for (const ComparedRow& row : cell.rows) {
      out +=
          fmt::format("{:<{}}  {}  {}  {}", row.variant, width, columns_of(row.requests_per_s, 0),
                      columns_of(row.server_cpu_us_per_request, -1), columns_of(row.p99_us, -1));
      if (!row.unfit.empty()) out += "  " + row.unfit;
      if (!row.worse.empty()) out += fmt::format("  WORSE: {}", fmt::join(row.worse, ", "));
      out += "\n";
    }
  }
  out += "\n";
  const auto names = [&](const char* what, const std::vector<std::string>& list) {
    if (!list.empty()) out += fmt::format("{}: {}\n", what, fmt::join(list, ", "));
  };
  names("only in A", c.only_a);
  names("only in B", c.only_b);
  names("failed in B only", c.failed_in_b);
  out +=
      "req/s: replies per second. CPU us: server CPU per request. B/A: below 1 is less in B. "
      "- : not measured.\n";
  if (limit) {
    for (const std::string& gap : c.gaps()) out += fmt::format("INCOMPLETE: {}\n", gap);
    out += fmt::format("{} beyond {:.4g} % in CPU per request or throughput, of {} rows judged.\n",
                       c.regressed() ? "REGRESSION" : "No regression", *limit * 100, c.judged());
  }
  return out;
}

nlohmann::ordered_json to_json(const Comparison& c, const std::string& name_a,
                               const std::string& name_b, std::optional<double> limit) {
  Json differences = Json::array();
  for (const Difference& d : c.differences) {
    differences.push_back({{"field", d.field},
                           {"a", d.a},
                           {"b", d.b},
                           {"doubtful", d.doubtful},
                           {"meaning", d.meaning}});
  }
  Json cells = Json::array();
  for (const ComparedCell& cell : c.cells) {
    Json rows = Json::array();
    for (const ComparedRow& row : cell.rows) {
      rows.push_back({{"variant", row.variant},
                      {"requests_per_s", pair_json(row.requests_per_s)},
                      {"server_cpu_us_per_request", pair_json(row.server_cpu_us_per_request)},
                      {"p99_us", pair_json(row.p99_us)},
                      {"unfit", row.unfit},
                      {"worse", row.worse}});
    }
    cells.push_back({{"connections", cell.shape.connections},
                     {"size_bytes", cell.shape.size},
                     {"depth", cell.shape.depth},
                     {"rate_per_s", cell.shape.rate},
                     {"rows", std::move(rows)}});
  }
  return {{"schema", "echolab.compare"},
          {"version", 1},
          {"a", name_a},
          {"b", name_b},
          {"fail_on_percent", limit ? Json(*limit * 100) : Json(nullptr)},
          {"regressed", limit && c.regressed()},
          {"rows_judged", c.judged()},
          {"gaps", c.gaps()},
          {"other_machine", c.other_machine},
          {"remarks", c.remarks},
          {"differences", std::move(differences)},
          {"cells", std::move(cells)},
          {"only_a", c.only_a},
          {"only_b", c.only_b},
          {"failed_in_b", c.failed_in_b}};
}

}  // namespace echolab::harness
