#include "harness/table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <vector>

#include "harness/client_socket.hpp"
#include "harness/process.hpp"
#include "harness/seam.hpp"
#include "harness/sweep.hpp"
#include "harness/units.hpp"
#include "harness/verdict_table.hpp"
#include "harness/verdicts.hpp"

namespace echolab::harness {
namespace {

using Row = std::vector<std::string>;

struct Heading {
  const char* text;
  bool group;  // begins a group: a wider gap before it
};
constexpr Heading kHeadings[] = {
    {"variant", false}, {"req/s", true},  {"MB/s", false}, {"p50", true}, {"p90", false},
    {"p99", false},     {"p99.9", false}, {"max", false},  {"CPU", true}, {"user+sys", false},
    {"client", false},  {"KiB/c", true},  {"gates", true}};

constexpr const char* kLegend[] = {
    "req/s, MB/s: replies verified byte by byte, one direction. p50 to max: latency in us; a "
    "percentile needs 100 samples beyond it.",
    "CPU: server CPU us per request, kernel threads included, split into user+sys (sampled). "
    "client: the generator's CPU us per request.",
    "KiB/c: the server's resident memory per connection that has echoed one byte.",
    "gates: slices dropped and repeated because a check failed. - : cannot be measured or too few "
    "samples, never zero."};

std::string thousands(const std::optional<double>& value) {
  if (!value) return "-";
  return fmt::format("{:.0f}", *value);
}

std::uint64_t dropped(const Result& result) {
  return static_cast<std::uint64_t>(
      std::count_if(result.slices.begin(), result.slices.end(),
                    [](const SliceRow& row) { return row.gate != Gate::kept; }));
}

// What keeps a row from a verdict, in a few words; the whole story stands under the table.
std::string main_reason(const Result& result) {
  constexpr std::pair<const char*, const char*> kWords[] = {{"busy", "busy CPU"},
                                                            {"others", "busy CPU"},
                                                            {"steal", "stolen CPU"},
                                                            {"cq_overflow", "CQ overflow"},
                                                            {"keeps_up", "too slow"},
                                                            {"client", "client at its limit"},
                                                            {"achieved", "skipped requests"},
                                                            {"little", "Little's law"},
                                                            {"empty", "no replies"},
                                                            {"complete", "too few slices"}};
  const auto words = [&](const std::string& gate) -> std::string {
    for (const auto& [name, text] : kWords) {
      if (gate == name) return text;
    }
    return gate;
  };
  const GateResult* failed = nullptr;
  const GateResult* most = nullptr;  // of the per-slice gates, the one that dropped most
  for (const GateResult& gate : result.gates) {
    if (!gate.passed && failed == nullptr) failed = &gate;
    if (gate.dropped > 0 && (most == nullptr || gate.dropped > most->dropped)) most = &gate;
  }
  if (failed == nullptr) return "";
  return words(failed->gate == "dropped" && most != nullptr ? most->gate : failed->gate);
}

std::string gates_text(const Result& result) {
  if (!result.error.empty()) return "FAILED";
  if (!result.no_verdict.empty()) {
    const std::string reason = main_reason(result);
    return reason.empty() ? "no verdict" : "no verdict: " + reason;
  }
  const std::uint64_t lost = dropped(result);
  return lost == 0 ? "ok" : fmt::format("ok, -{}", lost);
}

Row row_of(const Result& result) {
  const Summary& s = result.summary;
  std::string split = "-";
  if (s.user_us_per_request && s.system_us_per_request) {
    split = figure(s.user_us_per_request) + "+" + figure(s.system_us_per_request);
  }
  return {result.variant,
          thousands(s.requests_per_s),
          figure(s.mb_per_s),
          figure(s.p50_us),
          figure(s.p90_us),
          figure(s.p99_us),
          figure(s.p999_us),
          figure(s.max_us),
          figure(s.server_cpu_us_per_request),
          split,
          figure(s.client_cpu_us_per_request),
          figure(s.kib_per_connection),
          gates_text(result)};
}

// Open loop: the latency as a generator would show it that forgets what it should have sent.
Row raw_row_of(const Result& result) {
  const Summary& s = result.summary;
  Row row(std::size(kHeadings));
  row[0] = "  from send";
  row[3] = figure(s.raw_p50_us);
  row[4] = figure(s.raw_p90_us);
  row[5] = figure(s.raw_p99_us);
  row[6] = figure(s.raw_p999_us);
  row[7] = figure(s.raw_max_us);
  return row;
}

std::vector<Row> rows_of(const CellRecord& cell) {
  std::vector<Row> rows;
  for (const Result& result : cell.results) {
    if (result.slices.empty()) continue;  // only a note
    rows.push_back(row_of(result));
    if (result.raw) rows.push_back(raw_row_of(result));
  }
  return rows;
}

std::uint64_t dropped_by(const Result& result, Gate gate) {
  return static_cast<std::uint64_t>(
      std::count_if(result.slices.begin(), result.slices.end(),
                    [&](const SliceRow& row) { return row.gate == gate; }));
}

// What the slices of a closed loop had in flight, where that is far from what was asked for.
std::string short_slices(const CellRecord& cell, const Plan& plan) {
  constexpr double kNearlyAll = 0.8;  // of connections x depth; ramp and drain take the rest
  if (cell.shape.rate > 0) return "";
  const double asked = static_cast<double>(cell.shape.connections) * cell.shape.depth;
  std::vector<std::pair<double, std::string>> means;
  for (const Result& result : cell.results) {
    if (result.slices.empty()) continue;
    double sum = 0;
    for (const SliceRow& row : result.slices) sum += row.inflight_mean;
    means.emplace_back(sum / static_cast<double>(result.slices.size()), result.variant);
  }
  if (means.empty()) return "";
  const auto [least, most] = std::minmax_element(means.begin(), means.end());
  if (least->first >= kNearlyAll * asked) return "";
  return fmt::format(
      "slices of {} are too short to keep all {:.0f} requests in flight: {:.0f} ({}) to {:.0f} "
      "({}) on average; a longer --slice does",
      format_duration(plan.slice), asked, least->first, least->second, most->first, most->second);
}

// Why the ratios of a cell are missing, where its baseline is.
std::string no_ratios(const CellRecord& cell, const Plan& plan) {
  bool others = false;
  const Result* baseline = nullptr;
  for (const Result& result : cell.results) {
    if (result.slices.empty()) continue;
    others = others || result.variant != plan.baseline;
    if (result.variant == plan.baseline) baseline = &result;
  }
  if (!others) return "";
  if (baseline == nullptr) {
    return fmt::format("no ratios: the baseline {} was not measured here", plan.baseline);
  }
  if (baseline->latency.count() > 0) return "";
  return fmt::format("no ratios: all slices of the baseline {} were dropped", plan.baseline);
}

// Hypervisors fill the twelve bytes of their CPUID signature by repeating it: "KVMKVMKVM" is KVM.
std::string once(const std::string& signature) {
  for (std::size_t n = 1; n <= signature.size() / 2; ++n) {
    // Repeated if it is its own continuation.
    if (signature.size() % n == 0 &&
        signature.compare(n, std::string::npos, signature, 0, signature.size() - n) == 0) {
      return signature.substr(0, n);
    }
  }
  return signature;
}

// As a shell takes it back for one word.
std::string shell_word(const std::string& word) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=.,:/@%";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) return word;
  std::string out = "'";
  for (const char c : word) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      out += c;
    }
  }
  return out + "'";
}

}  // namespace

std::vector<std::string> notes_of(const CellRecord& cell, const Plan& plan) {
  std::vector<std::string> notes;
  std::uint64_t stolen_rounds = 0;
  for (const Result& result : cell.results) {
    if (!result.error.empty()) notes.push_back("FAILED: " + result.error);
    stolen_rounds = std::max(stolen_rounds, dropped_by(result, Gate::steal));
    std::vector<std::string> reasons;
    for (const GateResult& gate : result.gates) {
      const bool said_below = gate.gate == name_of(Gate::steal) && result.no_verdict.empty();
      if (gate.dropped > 0 && !said_below) {
        reasons.push_back(fmt::format("{} {}", gate.gate, gate.dropped));
      }
    }
    const std::string by_gate =
        reasons.empty() ? "" : fmt::format(" (dropped by gate: {})", fmt::join(reasons, ", "));
    if (!result.no_verdict.empty()) {
      notes.push_back(
          fmt::format("{}: no verdict possible: {}{}", result.variant, result.no_verdict, by_gate));
    } else if (!reasons.empty()) {
      notes.push_back(fmt::format("{}: slices dropped and repeated{}", result.variant, by_gate));
    }
  }
  if (stolen_rounds > 0) {
    notes.push_back(fmt::format("{} rounds dropped and repeated: the hypervisor took the CPU away",
                                stolen_rounds));
  }
  if (const std::string note = seam_line(cell); !note.empty()) notes.push_back(note);
  if (const std::string note = no_ratios(cell, plan); !note.empty()) notes.push_back(note);
  if (const std::string note = short_slices(cell, plan); !note.empty()) notes.push_back(note);
  return notes;
}

std::vector<std::string> preamble(const RunRecord& run) {
  const nlohmann::json& env = run.environment;
  std::vector<std::string> lines;
  lines.push_back(fmt::format("{}, {} CPUs online, {}; Linux {}", fact(env, "/machine/cpu_model"),
                              fact(env, "/machine/cpus_online"),
                              fact(env, "/machine/hypervisor") == "unknown"
                                  ? "no hypervisor seen"
                                  : "under " + once(fact(env, "/machine/hypervisor")),
                              fact(env, "/kernel/release")));
  lines.push_back(fmt::format("{} build by {}, commit {}{}", fact(env, "/build/type"),
                              fact(env, "/build/compiler"), fact(env, "/build/commit"),
                              fact(env, "/build/dirty") == "true" ? " with changes" : ""));
  lines.push_back(fmt::format("placement {}: servers on CPU {}, client on CPU {}: {}",
                              run.placement.used, cpu_list(run.placement.server_cpus),
                              cpu_list(run.placement.client_cpus), run.placement.why));
  lines.push_back(fmt::format(
      "TCP congestion control: {} on the servers' side (the system's default), {} on the client's",
      fact(env, "/kernel/sysctls/net.ipv4.tcp_congestion_control"), kClientCongestionControl));
  lines.push_back(fmt::format(
      "{} slices of {} per variant and cell in {} block{} of fresh processes, interleaved in "
      "shuffled rounds, seed {}; {} thread{} "
      "a server; baseline {}; steal {:.1f} % (median)",
      run.plan.slices, format_duration(run.plan.slice), run.plan.blocks,
      run.plan.blocks == 1 ? "" : "s", run.seed, run.plan.threads, run.plan.threads == 1 ? "" : "s",
      run.plan.baseline, run.steal.median_share * 100));
  if (run.plan.quick) lines.emplace_back("QUICK run: numbers, never a verdict.");
  if (run.partial)
    lines.emplace_back(
        run.plan.sweep ? "PARTIAL run: interrupted, or its time was up; what is here was measured."
                       : "PARTIAL run: it was interrupted; what is here was measured.");
  return lines;
}

std::string command_text(const RunRecord& run) {
  Row words;
  for (const std::string& word : run.command) words.push_back(shell_word(word));
  return fmt::format("{}", fmt::join(words, " "));
}

std::vector<std::string> absences(const RunRecord& run) {
  std::vector<std::string> lines;
  for (const VariantRecord& v : run.variants) {
    if (!v.unavailable.empty()) {
      lines.push_back(fmt::format("{}: not available here: {}", v.name, v.unavailable));
    }
    for (const FeatureRecord& f : v.features) {
      if (f.asked && !f.granted) {
        lines.push_back(fmt::format("{}: asked for {}, not granted{}{}", v.name, f.name,
                                    f.note.empty() ? "" : ": ", f.note));
      }
      if (f.granted && f.name == "sqpoll") {
        lines.push_back(fmt::format(
            "{}: its kernel thread spins for a while after each slice, on the CPU of the others' "
            "slices; it is charged for its own slices only: measure it alone, with --place split",
            v.name));
      }
    }
  }
  return lines;
}

std::string markdown_row(const std::vector<std::string>& row) {
  return fmt::format("| {} |\n", fmt::join(row, " | "));
}

std::string markdown_rows(const Row& headings, const std::vector<Row>& rows) {
  if (rows.empty()) return "";
  std::string out = markdown_row(headings) + markdown_row(Row(headings.size(), ":--"));
  for (const Row& row : rows) {
    Row safe;
    for (const std::string& text : row) safe.push_back(markdown_text(text));
    out += markdown_row(safe);
  }
  return out;
}

std::string cell_title(const CellShape& shape) {
  return fmt::format("{} connection{}, {}, {}", shape.connections,
                     shape.connections == 1 ? "" : "s", format_size(shape.size),
                     shape.rate > 0 ? fmt::format("open loop at {} requests/s", shape.rate)
                                    : fmt::format("depth {}, closed loop", shape.depth));
}

std::string markdown_text(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '|' || c == '<' || c == '*' || c == '_' || c == '`') out += '\\';
    out += c;
  }
  return out;
}

std::string figure(const std::optional<double>& value) {
  if (!value) return "-";
  const double size = std::abs(*value);
  if (size == 0) return "0";
  // By what it is rounded to: 0.9999 is 1.00.
  if (size < 0.00995) return fmt::format("{:.4f}", *value);
  if (size < 0.9995) return fmt::format("{:.3f}", *value);
  if (size < 9.995) return fmt::format("{:.2f}", *value);
  if (size < 99.95) return fmt::format("{:.1f}", *value);
  return fmt::format("{:.0f}", *value);
}

std::string fact(const nlohmann::json& environment, const char* pointer) {
  const nlohmann::json::json_pointer where(pointer);
  if (!environment.contains(where)) return "unknown";
  const nlohmann::json& value = environment[where];
  if (value.is_null()) return "unknown";
  if (value.is_string()) return value.get<std::string>();
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string terminal_table(const RunRecord& run) {
  std::vector<std::size_t> widths;
  for (const Heading& heading : kHeadings) widths.push_back(std::string(heading.text).size());
  for (const CellRecord& cell : run.cells) {
    for (const Row& row : rows_of(cell)) {
      for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
    }
  }
  const auto line = [&](const Row& row) {
    std::string text = fmt::format("{:<{}}", row[0], widths[0]);
    for (std::size_t i = 1; i < row.size(); ++i) {
      text += fmt::format("{}{:>{}}", kHeadings[i].group ? "  " : " ", row[i], widths[i]);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    return text + "\n";
  };
  Row headings;
  for (const Heading& heading : kHeadings) headings.emplace_back(heading.text);

  std::string out;
  for (const std::string& text : preamble(run)) out += text + "\n";
  for (const CellRecord& cell : run.cells) {
    out += fmt::format("\n{}\n", cell_title(cell.shape));
    const std::vector<Row> rows = rows_of(cell);
    if (!rows.empty()) out += line(headings);
    for (const Row& row : rows) out += line(row);
    out += terminal_verdicts(run, cell);
    for (const std::string& note : notes_of(cell, run.plan)) out += "  " + note + "\n";
  }
  for (const SweepRecord& sweep : run.sweeps) {
    out += fmt::format("\n{}\n", sweep_title(sweep));
    std::vector<Row> rows = sweep_rows(sweep);
    rows.insert(rows.begin(), sweep_headings(sweep));
    out += aligned(rows);
    for (const std::string& text : sweep_lines(sweep)) out += "  " + text + "\n";
  }
  out += "\n";
  for (const std::string& text : overall(run)) out += "over all closed-loop cells: " + text + "\n";
  for (const std::string& text : absences(run)) out += text + "\n";
  for (const char* text : kLegend) out += std::string(text) + "\n";
  for (const std::string& text : verdict_legend(run)) out += text + "\n";
  return out;
}

std::string markdown_table(const RunRecord& run) {
  std::string out = fmt::format("# echolab run of {}\n\n", run.started);
  for (const std::string& text : preamble(run)) out += "- " + markdown_text(text) + "\n";
  out += fmt::format("- command: `{}`\n", command_text(run));
  for (const std::string& text : absences(run)) out += "- " + markdown_text(text) + "\n";
  for (const SweepRecord& sweep : run.sweeps) {
    out += fmt::format("\n## {}\n", markdown_text(sweep_title(sweep)));
    Row headings = sweep_headings(sweep);
    for (std::string& text : headings) text = markdown_text(text);
    out += fmt::format("\n{}\n", markdown_rows(headings, sweep_rows(sweep)));
    for (const std::string& text : sweep_lines(sweep)) out += "- " + markdown_text(text) + "\n";
  }
  for (const CellRecord& cell : run.cells) {
    out += fmt::format("\n## {}\n\n", cell_title(cell.shape));
    const std::vector<Row> rows = rows_of(cell);
    if (!rows.empty()) {
      Row headings, rule;
      for (const Heading& heading : kHeadings) {
        headings.emplace_back(heading.text);
        rule.emplace_back(rule.empty() ? ":--" : "--:");
      }
      out += markdown_row(headings) + markdown_row(rule);
    }
    for (Row row : rows) {
      row[0] = markdown_text(row[0]);
      out += markdown_row(row);
    }
    out += markdown_verdicts(run, cell);
    const std::vector<std::string> notes = notes_of(cell, run.plan);
    if (!notes.empty()) out += "\n";
    for (const std::string& note : notes) out += "- " + markdown_text(note) + "\n";
  }
  const std::vector<std::string> means = overall(run);
  if (!means.empty()) out += "\n## Over all closed-loop cells (geometric means)\n\n";
  for (const std::string& text : means) out += "- " + markdown_text(text) + "\n";
  out += "\n## How to read this\n\n";
  for (const char* text : kLegend) out += fmt::format("- {}\n", text);
  for (const std::string& text : verdict_legend(run)) out += fmt::format("- {}\n", text);
  return out;
}

}  // namespace echolab::harness
