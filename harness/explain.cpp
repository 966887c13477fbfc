#include "harness/explain.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "harness/ratio.hpp"
#include "harness/table.hpp"
#include "harness/verdicts.hpp"

namespace echolab::harness {
namespace {

// A difference in count is worth naming if it may cost this share of the CPU per request: a quarter
// of the least that counts as a difference at all.
constexpr double kWorthNaming = 0.005;
// The same where nothing is known about what it costs, and for times: the greater to the smaller.
constexpr double kWorthNamingRatio = 1.5;
// Of a difference, what figures account for: less is not worth a number, more is all of it. What
// they leave over is looked for elsewhere until most is found.
constexpr double kLeastShare = 0.05, kWholeShare = 0.95, kMostShare = 0.75;
// Ratios this far from 1 are told as "1.71 times", nearer ones in percent.
constexpr double kFarRatio = 1.5;
// The split into user and system time is sampled at clock ticks of at most this length, so that it
// is as uncertain as a count of ticks.
constexpr double kTickNs = 10e6;
constexpr double kCertain = 2;    // standard errors
constexpr double kFewTicks = 20;  // of CPU time: no word about the split
// The kernel has nearly all of the CPU time, and entering it and switching are less than half.
constexpr double kKernelShare = 0.8, kOverheadShare = 0.5;

constexpr std::size_t kFigures = 2;  // that a sentence names at most, for one reason

constexpr const char* kSwitches = "context switches";

// A row, what it is compared with, and what is known about both.
struct Case {
  const Result& row;
  const Result& base;
  const Verdicts& verdicts;
  const CellShape& shape;
  UnitCosts costs;
  bool one_cpu;  // of servers and client together: what one takes, the other has not
  const CellRecord* cell = nullptr;  // whose other rows may bear out what is said, or may not
};

// A count per request, of both rows.
struct Figure {
  std::string name;
  double row = 0, base = 0;
  std::optional<double> unit_us;  // what one costs about
  bool priced = true;             // false: unit_us says only whether it is worth naming
  std::string note;
  [[nodiscard]] double cost_us() const { return (row - base) * unit_us.value_or(0); }
};

std::optional<double> counter(const Result& result, const char* name) {
  if (!result.window.counters) return std::nullopt;
  const auto found = result.window.counters->find(name);
  if (found == result.window.counters->end()) return std::nullopt;
  return ratio(as_double(found->second), as_double(result.window.requests));
}

bool both_counted(const Case& c) {
  return c.row.summary.syscalls_per_request && c.base.summary.syscalls_per_request;
}

bool far_apart(double a, double b) {
  return std::max(a, b) > kWorthNamingRatio * std::min(a, b);
}

bool worth_naming(const Figure& f, double cpu_us) {
  if (f.unit_us) return std::abs(f.cost_us()) >= kWorthNaming * cpu_us;
  return far_apart(f.row, f.base);
}

// The kind of system call, of those that both make, that most of the difference is in.
std::string differs_most(const Case& c) {
  constexpr double kMost = 2.0 / 3;
  const auto &row = c.row.summary.syscalls_by_kind, &base = c.base.summary.syscalls_by_kind;
  const double all = *c.row.summary.syscalls_per_request - *c.base.summary.syscalls_per_request;
  for (const auto& [kind, count] : row) {
    const auto found = base.find(kind);
    if (found != base.end() && std::abs(count - found->second) > kMost * std::abs(all) &&
        (count > found->second) == (all > 0)) {
      return fmt::format(" ({} differs most)", kind);
    }
  }
  return "";
}

// What both rows have, in order of importance.
std::vector<Figure> figures(const Case& c) {
  std::vector<Figure> out;
  const auto add = [&](const std::string& name, const std::optional<double>& row,
                       const std::optional<double>& base, const std::optional<double>& unit,
                       bool priced = true) {
    if (row && base) out.push_back({name, *row, *base, unit, priced, ""});
  };
  const Summary &row = c.row.summary, &base = c.base.summary;
  add(kSwitches, switches_per_request(row), switches_per_request(base), c.costs.switch_us);
  add("system calls", row.syscalls_per_request, base.syscalls_per_request, c.costs.syscall_us);
  if (both_counted(c)) out.back().note = differs_most(c);
  add("us in kernel threads", row.workers_us_per_request, base.workers_us_per_request, 1);
  constexpr std::pair<const char*, const char*> kCounters[] = {
      {"pool_jobs", "jobs in the thread pool"},
      {"enobufs", "receives without a buffer"},
      {"rearms", "re-armed operations"},
      {"short_sends", "short sends"}};
  for (const auto& [name, text] : kCounters) {
    add(text, counter(c.row, name), counter(c.base, name), c.costs.switch_us, false);
  }
  // A thread that switches away has to be woken: that would be the same again.
  const bool told = !out.empty() && out.front().name == kSwitches &&
                    worth_naming(out.front(), *base.server_cpu_us_per_request);
  if (told) return out;
  add("wake-ups", row.wakeups_per_request, base.wakeups_per_request, c.costs.switch_us, false);
  return out;
}

// "1.00 context switches per request against 0.038"
std::string text_of(const Figure& f, bool first) {
  return fmt::format("{} {}{} against {}{}", figure(f.row), f.name, first ? " per request" : "",
                     figure(f.base), f.note);
}

std::string list_of(const std::vector<Figure>& of, std::size_t at_most) {
  std::vector<std::string> texts;
  for (const Figure& f : of) {
    if (texts.size() < at_most) texts.push_back(text_of(f, texts.empty()));
  }
  return fmt::format("{}", fmt::join(texts, ", "));
}

// "10 % more CPU", "1.71 times the CPU"
std::string words(double ratio, const char* what, const char* more, const char* less) {
  if (ratio >= kFarRatio || ratio <= 1 / kFarRatio) {
    return fmt::format("{} times the {}", figure(ratio), what);
  }
  const double percent = std::abs(ratio - 1) * 100;
  return fmt::format("{:.{}f} % {} {}", percent, percent < 9.95 ? 1 : 0, ratio < 1 ? less : more,
                     what);
}

std::string share_text(double share) {
  if (share >= kWholeShare) return "enough to account for it";
  return fmt::format("about {:.0f} % of it", std::max(1.0, std::round(share * 10)) * 10);
}

// "; user time +3.3 us", where sampling is fine enough to tell and it is a good part of the
// difference.
std::string split_text(const Case& c, double difference_us) {
  constexpr double kGoodPart = 0.25;
  const Window &row = c.row.window, &base = c.base.window;
  if (row.requests == 0 || base.requests == 0) return "";
  const char* kind = nullptr;
  double part_us = 0;
  for (const auto& [name, ns] :
       {std::pair{"user", &Window::user_ns}, std::pair{"system", &Window::system_ns}}) {
    const double requests = as_double(row.requests), base_requests = as_double(base.requests);
    const double more_ns = as_double(row.*ns) / requests - as_double(base.*ns) / base_requests;
    const double error_ns = std::hypot(std::sqrt(as_double(row.*ns) * kTickNs) / requests,
                                       std::sqrt(as_double(base.*ns) * kTickNs) / base_requests);
    const double share = more_ns / 1e3 / difference_us;
    if (std::abs(more_ns) < kCertain * error_ns || share < kGoodPart) continue;
    if (share < part_us / difference_us) continue;
    kind = name;
    part_us = more_ns / 1e3;
  }
  if (kind == nullptr) return "";
  return fmt::format("; {} time {}{} us (sampled)", kind, part_us < 0 ? "-" : "+",
                     figure(std::abs(part_us)));
}

// Whether the kernel's own work on the data is most of what both cost: not user space, not the
// entering of the kernel, not switching.
bool kernel_dominates(const Case& c) {
  if (!c.costs.syscall_us || !c.costs.switch_us || !both_counted(c)) return false;
  const auto holds = [&](const Result& r) {
    const double user = as_double(r.window.user_ns), system = as_double(r.window.system_ns);
    const std::optional<double> switched = switches_per_request(r.summary);
    if (!switched || r.window.requests == 0 || user + system < kFewTicks * kTickNs) return false;
    const double overhead_us =
        *r.summary.syscalls_per_request * *c.costs.syscall_us + *switched * *c.costs.switch_us;
    return system >= kKernelShare * (user + system) &&
           overhead_us < kOverheadShare * system / 1e3 / as_double(r.window.requests);
  };
  return holds(c.row) && holds(c.base);
}

// A row of the cell that differs from the baseline in the same figure, by at least about as much,
// and whose CPU for certain shows less than half of what that should cost, whatever its other
// figures cost. Null: none, so that the figure may be the cause.
const Result* refuted_by(const Case& c, const Figure& f) {
  constexpr double kAsMuch = 0.75, kShows = 0.5;
  if (c.cell == nullptr) return nullptr;
  const double cpu = *c.base.summary.server_cpu_us_per_request;
  for (const Result& other : c.cell->results) {
    const std::optional<Judgement>& judged = other.verdicts.cpu;
    if (&other == &c.row || &other == &c.base || !judged || !judged->low || !judged->high) continue;
    double same = 0, besides = 0;
    for (const Figure& g : figures({other, c.base, other.verdicts, c.shape, c.costs, c.one_cpu})) {
      if (g.priced) (g.name == f.name ? same : besides) += g.cost_us();
    }
    if (same / f.cost_us() < kAsMuch) continue;
    const double most = cpu * ((same < 0 ? *judged->low : *judged->high) - 1) - besides;
    if (most / same < kShows) return &other;
  }
  return nullptr;
}

// ---- the cases ----------------------------------------------------------------------------------

// The figures worth naming that `take` accepts: those with a price first, the dearest first.
template <class Take>
std::vector<Figure> chosen(const std::vector<Figure>& all, double cpu_us, Take take) {
  std::vector<Figure> out;
  for (const Figure& f : all) {
    if (worth_naming(f, cpu_us) && take(f)) out.push_back(f);
  }
  std::stable_sort(out.begin(), out.end(), [](const Figure& a, const Figure& b) {
    if (a.priced != b.priced) return a.priced;
    return std::abs(a.cost_us()) > std::abs(b.cost_us());
  });
  return out;
}

// Of an open loop, in which all serve the same requests: "46 % of a CPU against 27 %".
std::string utilisation(const Case& c) {
  const Summary &row = c.row.summary, &base = c.base.summary;
  if (!(c.shape.rate > 0) || !row.requests_per_s || !base.requests_per_s) return "";
  constexpr double kUsPerPercent = 1e4;  // of a second
  return fmt::format(", {:.0f} % of a CPU against {:.0f} %",
                     *row.server_cpu_us_per_request * *row.requests_per_s / kUsPerPercent,
                     *base.server_cpu_us_per_request * *base.requests_per_s / kUsPerPercent);
}

// CPU is told apart: what accounts for it, for how much, and what else there is.
std::string decided(const Case& c, double cpu_ratio) {
  const double cpu = *c.base.summary.server_cpu_us_per_request;
  const double difference = cpu * (cpu_ratio - 1);
  std::string out =
      fmt::format("{} ({}{} us{})", words(cpu_ratio, "CPU", "more", "less"),
                  difference < 0 ? "-" : "+", figure(std::abs(difference)), utilisation(c));
  const std::vector<Figure> all = figures(c);
  const auto with = [&](bool priced, bool same_sign) {
    return chosen(all, cpu, [&](const Figure& f) {
      return f.priced == priced && ((f.row - f.base) * difference > 0) == same_sign;
    });
  };
  std::vector<Figure> named = with(true, true);
  const std::vector<Figure> against = with(true, false), unpriced = with(false, true);
  if (!named.empty() && !named.front().unit_us) return out + "; " + list_of(named, kFigures);
  // Only what costs a good part of it besides the first.
  constexpr double kGoodPart = 0.25;
  const double most = named.empty() ? 0 : named.front().cost_us();
  std::erase_if(named, [&](const Figure& f) { return f.cost_us() / most < kGoodPart; });
  std::string beside;
  std::erase_if(named, [&](const Figure& f) {
    const Result* other = refuted_by(c, f);
    if (other != nullptr && beside.empty()) {
      beside = fmt::format(" beside {}; {} has as {} without that effect", text_of(f, true),
                           other->variant, f.row < f.base ? "few" : "many");
    }
    return other != nullptr;
  });
  double costs = 0;
  for (const std::vector<Figure>& some : {named, against}) {
    for (const Figure& f : some) costs += f.cost_us();
  }
  const double share = costs / difference;
  if (share < kLeastShare) named.clear();  // the others outweigh it: no cause
  if (!named.empty()) {
    out += ": " + list_of(named, kFigures) + ", " + share_text(share);
    if (share >= kMostShare) return out;
  } else if (!beside.empty()) {
    out += beside;
  } else if (!against.empty()) {
    out += " although " + text_of(against.front(), true);
  }
  const bool first = named.empty() && beside.empty() && against.empty();
  if (!unpriced.empty()) {
    return fmt::format("{}; {}{}", out, named.empty() ? "" : "also ",
                       text_of(unpriced.front(), first));
  }
  if (const std::string split = split_text(c, difference); !split.empty()) return out + split;
  if (!named.empty() || !beside.empty()) return out;
  return out + (both_counted(c) ? "; no counter accounts for it"
                                : "; no figure known of both accounts for it");
}

std::string equivalent(const Case& c) {
  const double cpu = *c.base.summary.server_cpu_us_per_request;
  // What could be expected to show in it, at twice what is worth naming otherwise.
  const auto named = chosen(figures(c), cpu, [&](const Figure& f) {
    return !f.unit_us || std::abs(f.cost_us()) >= 2 * kWorthNaming * cpu;
  });
  if (named.empty()) return both_counted(c) ? "equal CPU; no counter differs much" : "equal CPU";
  return list_of(named, 1) + ", yet equal CPU" +
         (kernel_dominates(c) ? ": the TCP stack dominates" : "");
}

// CPU is not told apart, throughput is. On one CPU the time per request is the server's and the
// client's CPU time together with what neither used; a share of it is told where the server's is
// known to be equal.
std::string other_pace(const Case& c, const std::string& head, double pace_ratio, bool equal) {
  const std::string pace = head + words(pace_ratio, "requests per second", "more", "fewer");
  const Summary &row = c.row.summary, &base = c.base.summary;
  if (!c.one_cpu || !base.requests_per_s || !row.server_cpu_us_per_request ||
      !row.client_cpu_us_per_request || !base.client_cpu_us_per_request) {
    return pace;
  }
  const double difference = 1e6 / *base.requests_per_s * (1 / pace_ratio - 1);
  const double in_row = *row.server_cpu_us_per_request + *row.client_cpu_us_per_request;
  const double in_base = *base.server_cpu_us_per_request + *base.client_cpu_us_per_request;
  const double share = (in_row - in_base) / difference;
  const std::string taken =
      fmt::format("server and client take {} us of CPU per request against {}", figure(in_row),
                  figure(in_base));
  if (!equal) return pace + "; " + taken;
  if (share < kLeastShare) return pace + "; CPU time does not account for it";
  return pace + ": " + taken + ", " + share_text(share);
}

// Only p99 is told apart.
std::string other_p99(const Case& c, const std::string& head, double p99_ratio) {
  const std::string p99 = head + words(p99_ratio, "p99", "longer", "shorter");
  const std::optional<double>&row = c.row.summary.run_delay_us_per_request,
        &base = c.base.summary.run_delay_us_per_request;
  if (!row || !base || !far_apart(*row, *base) || (*row > *base) != (p99_ratio > 1)) return p99;
  return fmt::format("{}; {} us per request in the run queue against {}", p99, figure(*row),
                     figure(*base));
}

bool apart(const std::optional<Judgement>& one) {
  return one && (one->verdict == Verdict::faster || one->verdict == Verdict::slower);
}

// Numbers without a cause; nothing if there is none besides those in the head. `more`: of those,
// only what moves as the CPU does, up or down; null: all.
std::string plain(const Case& c, const std::string& head, std::size_t at_most,
                  const bool* more = nullptr) {
  const auto named =
      chosen(figures(c), *c.base.summary.server_cpu_us_per_request,
             [&](const Figure& f) { return more == nullptr || (f.row > f.base) == *more; });
  if (!named.empty()) return head + "; " + list_of(named, at_most);
  return both_counted(c) ? head + (more != nullptr ? "; no counter accounts for it"
                                                   : "; no counter differs much")
                         : "";
}

std::string sentence(const Case& c) {
  const std::optional<double>& cpu = c.base.summary.server_cpu_us_per_request;
  if (!cpu || !(*cpu > 0) || !c.row.summary.server_cpu_us_per_request) return "";
  const Verdicts& v = c.verdicts;
  if (!v.cpu && !v.throughput && !v.p99) {
    const std::optional<double>& ratio = c.row.summary.ratio_cpu;
    if (!ratio) return "";
    const bool more = *ratio > 1;
    return plain(c, fmt::format("CPU x {:.2f}", *ratio), kFigures, &more);
  }
  if (apart(v.cpu)) return decided(c, v.cpu->ratio);
  const bool equal = v.cpu && v.cpu->verdict == Verdict::equivalent;
  const std::string head = equal ? "equal CPU but " : "no verdict on CPU, but ";
  if (apart(v.throughput)) return other_pace(c, head, v.throughput->ratio, equal);
  if (apart(v.p99)) return other_p99(c, head, v.p99->ratio);
  if (equal) return equivalent(c);
  const std::string none = v.cpu ? "no verdict on CPU: " + v.cpu->why : "no verdict";
  const std::string figures = plain(c, none, 1);
  return figures.empty() ? none : figures;
}

bool on_one_cpu(const PlacementRecord& placement) {
  return placement.used == "same" && placement.server_cpus.size() == 1;
}

std::optional<double> number_at(const nlohmann::json& in, const char* pointer) {
  const nlohmann::json::json_pointer where(pointer);
  if (!in.contains(where) || !in[where].is_number()) return std::nullopt;
  const double value = in[where].get<double>();
  return value > 0 ? std::optional(value) : std::nullopt;
}

}  // namespace

std::optional<double> switches_per_request(const Summary& s) {
  if (!s.voluntary_switches_per_request || !s.involuntary_switches_per_request) return std::nullopt;
  return *s.voluntary_switches_per_request + *s.involuntary_switches_per_request;
}

UnitCosts unit_costs(const nlohmann::json& environment) {
  UnitCosts out;
  if (const auto ns = number_at(environment, "/probe/syscall_ns")) out.syscall_us = *ns / 1e3;
  const std::optional<double> wake = number_at(environment, "/probe/wake_same_cpu/median_us");
  // A wake-up of the probe is a write and a read as well, which are counted as system calls.
  if (wake && out.syscall_us && *wake > 2 * *out.syscall_us) {
    out.switch_us = *wake - 2 * *out.syscall_us;
  }
  return out;
}

std::string explain(const RunRecord& run, const CellRecord& cell, const Result& result) {
  const Result* base = cell.row(run.plan.baseline);
  if (base == nullptr || base == &result) return "";
  if (!base->error.empty() || !result.error.empty()) return "";
  if (result.variant == run.plan.baseline + kAgain) {
    if (!result.verdicts.cpu) return "";
    return fmt::format("the same server again, CPU x {}: a difference of this size says nothing",
                       interval_text(*result.verdicts.cpu));
  }
  return sentence({result, *base, result.verdicts, cell.shape, unit_costs(run.environment),
                   on_one_cpu(run.placement), &cell});
}

std::string explain_change(const RunRecord& run, const CellShape& shape, const Result& a,
                           const Result& b, const Verdicts& verdicts) {
  const bool cpu = verdicts.cpu && verdicts.cpu->verdict != Verdict::none;
  if (!cpu && !apart(verdicts.throughput) && !apart(verdicts.p99)) return "";
  if (!a.error.empty() || !b.error.empty()) return "";
  return sentence({b, a, verdicts, shape, unit_costs(run.environment), on_one_cpu(run.placement)});
}

}  // namespace echolab::harness
