// What a comparison looks like: text, Markdown, JSON.
#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "harness/compare.hpp"
#include "harness/result_record.hpp"
#include "harness/table.hpp"
#include "harness/verdicts.hpp"

namespace echolab::harness {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kLongestValue = 60;  // characters of a value in the list of differences

constexpr const char* kNothing = "Nothing to compare: no row is in both runs.";

std::string clipped(const std::string& text) {
  if (text.size() <= kLongestValue) return text;
  return fmt::format("{}...", std::string_view(text).substr(0, kLongestValue - 3));
}

// "A -> B". Of long values, such as the kernel's command line, from the first word that differs.
std::string change_of(const Difference& d) {
  std::string a = d.a, b = d.b;
  if (std::max(a.size(), b.size()) > kLongestValue) {
    const auto differs = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first;
    const std::string same(a.begin(), differs);
    const std::size_t end = same.find_last_of(" ,");
    if (end != std::string::npos) {
      a.replace(0, end + 1, "... ");
      b.replace(0, end + 1, "... ");
    }
  }
  return fmt::format("{} -> {}", clipped(a), clipped(b));
}

Json or_null(const std::optional<double>& value) {
  return value ? Json(rounded(*value)) : Json(nullptr);
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

// What holds for all rows is said once, above them.
std::string unfit(const Comparison& c, const ComparedRow& row) {
  return row.unfit == c.unfit ? "" : row.unfit;
}

std::string verdicts_of(const Comparison& c, const ComparedRow& row) {
  if (!row.unfit.empty()) return unfit(c, row);
  std::string out;
  for (const Metric& metric : verdict_metrics()) {
    const std::optional<Judgement>& one = row.verdicts.*metric.judgement;
    if (!one) continue;
    out += fmt::format("{}{} x {} {}", out.empty() ? "" : "; ", metric.title, interval_text(*one),
                       verdict_text(*one));
  }
  return out;
}

Json judgement_json(const std::optional<Judgement>& one) {
  if (!one) return nullptr;
  return {{"verdict", name_of(one->verdict)},
          {"ratio", rounded(one->ratio)},
          {"low", or_null(one->low)},
          {"high", or_null(one->high)},
          {"delta", rounded(one->delta)},
          {"p_holm", rounded(one->p_holm)},
          {"why", one->why}};
}

// A line that says more than that is not read; in rows whose noise is large there may be hundreds.
constexpr std::size_t kMostNamed = 8;

// The last lines say what the exit status says.
std::string conclusion(const Comparison& c, double limit) {
  std::string out;
  const std::vector<std::string> gaps = c.gaps(), open = c.may_be_worse();
  for (const std::string& gap : gaps) out += fmt::format("INCOMPLETE: {}\n", gap);
  if (!open.empty()) {
    const std::size_t named = std::min(open.size(), kMostNamed);
    out += fmt::format(
        "MAY BE WORSE, for all that is known: {}{}\n",
        fmt::join(open.begin(), open.begin() + static_cast<std::ptrdiff_t>(named), ", "),
        named < open.size() ? fmt::format(" and {} more (--json has all)", open.size() - named)
                            : "");
  }
  out += fmt::format(
      "{} beyond {:.4g} % in CPU per request, throughput or p99. Of {} rows in both, {} could be "
      "judged, {} have a verdict on CPU or throughput and {} on p99.\n",
      c.regressed() ? "REGRESSION" : "No regression", limit * 100, c.rows(), c.judged(),
      c.decided(), c.decided_p99());
  if (!c.regressed() && !gaps.empty()) out += "Not passed: the comparison is incomplete.\n";
  return out;
}

}  // namespace

std::string to_text(const Comparison& c, const std::string& name_a, const std::string& name_b,
                    std::optional<double> limit) {
  std::string out = fmt::format("A: {}\nB: {}\n", name_a, name_b);
  for (const std::string& remark : c.remarks) out += remark + "\n";
  if (c.other_machine) {
    out +=
        "The machine differs: absolute numbers cannot be compared, only what they show within "
        "each run. No row has a verdict.\n";
  }
  if (c.differences.empty()) out += "Same circumstances in every field that is known to matter.\n";
  for (const Difference& d : c.differences) {
    out += fmt::format("  {} {}: {}: {}\n", d.doubtful ? "DOUBTFUL" : "note    ", d.field,
                       change_of(d), d.meaning);
  }
  std::size_t width = std::string_view("variant").size();
  for (const ComparedCell& cell : c.cells) {
    for (const ComparedRow& row : cell.rows) width = std::max(width, row.variant.size());
  }
  if (c.rows() == 0) out += fmt::format("\n{}\n", kNothing);
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
      if (!row.worse.empty()) out += fmt::format("  WORSE: {}", fmt::join(row.worse, ", "));
      out += "\n";
      for (const std::string& line : {verdicts_of(c, row), row.explanation}) {
        if (!line.empty()) out += fmt::format("  {}\n", line);
      }
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
      "-: not measured.\n";
  if (c.judged() > 0) {
    out +=
        "Verdicts: B against A, by the blocks of each run; in brackets the 95 % interval of the "
        "row alone. Of many\nrows some differ by chance, so a verdict has to hold among all of "
        "them. They know the noise within the\nruns; what changed on the machine between them "
        "they cannot.\n";
  }
  return limit ? out + conclusion(c, *limit) : out;
}

std::string to_markdown(const Comparison& c, const std::string& name_a, const std::string& name_b,
                        std::optional<double> limit) {
  std::string out =
      fmt::format("# {} against {}\n\n", markdown_text(name_b), markdown_text(name_a));
  for (const std::string& remark : c.remarks) out += "- " + remark + "\n";
  if (c.other_machine)
    out += "- The machine differs: absolute numbers cannot be compared. No row has a verdict.\n";
  for (const Difference& d : c.differences) {
    out += fmt::format("- {} {}: {}: {}\n", d.doubtful ? "**doubtful**" : "note",
                       markdown_text(d.field), markdown_text(change_of(d)), d.meaning);
  }
  if (c.rows() == 0) out += fmt::format("\n{}\n", kNothing);
  for (const ComparedCell& cell : c.cells) {
    out += fmt::format("\n## {}\n\n", cell_title(cell.shape));
    if (cell.rows.empty()) {
      out += "No server in common.\n";
      continue;
    }
    out +=
        "| variant | CPU us A | B | CPU/request x | verdict | requests/s x | verdict | p99 x | "
        "verdict | why |\n|:--|--:|--:|:--|:--|:--|:--|:--|:--|:--|\n";
    for (const ComparedRow& row : cell.rows) {
      out += fmt::format("| {} | {} | {} |", markdown_text(row.variant),
                         figure(row.server_cpu_us_per_request.a),
                         figure(row.server_cpu_us_per_request.b));
      const std::string why = unfit(c, row), none = why.empty() ? "-" : markdown_text(why);
      for (const Metric& metric : verdict_metrics()) {
        const std::optional<Judgement>& one = row.verdicts.*metric.judgement;
        out += fmt::format(" {} | {} |", one ? interval_text(*one) : "-",
                           one ? markdown_text(verdict_text(*one)) : none);
      }
      out += fmt::format(" {} |\n", markdown_text(row.explanation));
    }
  }
  out += "\n";
  const auto names = [&](const char* what, const std::vector<std::string>& list) {
    if (!list.empty()) out += fmt::format("- {}: {}\n", what, fmt::join(list, ", "));
  };
  names("only in A", c.only_a);
  names("only in B", c.only_b);
  names("failed in B only", c.failed_in_b);
  return limit ? out + "\n" + conclusion(c, *limit) : out;
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
                      {"verdicts",
                       {{"cpu", judgement_json(row.verdicts.cpu)},
                        {"throughput", judgement_json(row.verdicts.throughput)},
                        {"p99", judgement_json(row.verdicts.p99)}}},
                      {"explanation", row.explanation},
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
          {"version", 2},
          {"a", name_a},
          {"b", name_b},
          {"fail_on_percent", limit ? Json(rounded(*limit * 100)) : Json(nullptr)},
          {"regressed", limit && c.regressed()},
          {"rows_judged", c.judged()},
          {"rows_decided", c.decided()},
          {"may_be_worse", c.may_be_worse()},
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
