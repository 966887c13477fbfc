// The sentence about a row: what it says in each case, and what it never says.
#include "harness/explain.hpp"

#include <cmath>
#include <functional>
#include <random>
#include <vector>

#include "harness/compare.hpp"
#include "harness/run_folder.hpp"
#include "harness/summary.hpp"
#include "harness/table.hpp"
#include "tests/catch.hpp"
#include "tests/helpers.hpp"
#include "tests/sample_run.hpp"

using namespace echolab::harness;

namespace {

// 10 us of CPU per request: 9 of the kernel's, 1 of the program's; 2 system calls, 1 switch.
Result row(const std::string& name) {
  Result result;
  result.variant = name;
  Summary& s = result.summary;
  s.requests_per_s = 50'000;  // 20 us each
  s.server_cpu_us_per_request = 10;
  s.client_cpu_us_per_request = 8;
  s.syscalls_per_request = 2;
  s.voluntary_switches_per_request = 0.75;
  s.involuntary_switches_per_request = 0.25;
  s.wakeups_per_request = 1;
  s.workers_us_per_request = 0;
  s.run_delay_us_per_request = 3;
  s.syscalls_by_kind = {{"recv", 1}, {"send", 1}};
  Window& w = result.window;
  w.requests = 1'000'000;
  w.user_ns = 1'000'000'000;
  w.system_ns = 9'000'000'000;
  w.counters = {{"pool_jobs", 0}, {"enobufs", 0}, {"rearms", 0}, {"short_sends", 0}};
  return result;
}

Judgement judgement(Verdict verdict, double ratio, const std::string& why = "") {
  Judgement out;
  out.verdict = verdict;
  out.ratio = ratio;
  out.why = why;
  return out;
}

// A baseline and a row, on a machine on which a system call costs 0.1 us and a switch 1 us.
struct Scene {
  RunRecord run;
  CellRecord cell{{64, 64, 1, 0}, {row("epoll"), row("other")}};
  Result &base, &other;
  Summary& s;

  Scene() : base(cell.results[0]), other(cell.results[1]), s(other.summary) {
    run.plan.baseline = "epoll";
    run.placement = {"same", "same", {0}, {0}, ""};
    run.environment["probe"] = {{"syscall_ns", 100.0}, {"wake_same_cpu", {{"median_us", 1.2}}}};
  }
  // The row's CPU per request is so many times the baseline's.
  void cpu(Verdict verdict, double ratio, const std::string& why = "") {
    s.server_cpu_us_per_request = 10 * ratio;
    s.ratio_cpu = ratio;
    other.verdicts.cpu = judgement(verdict, ratio, why);
  }
  [[nodiscard]] std::string said() const { return explain(run, cell, other); }
};

using Change = std::function<void(Scene&)>;

Change cpu(Verdict verdict, double ratio, const std::string& why = "") {
  return [=](Scene& it) { it.cpu(verdict, ratio, why); };
}
Change slower(double ratio) {
  return cpu(Verdict::slower, ratio);
}
Change calls(double count) {
  return [=](Scene& it) { it.s.syscalls_per_request = count; };
}
Change base_calls(double count) {
  return [=](Scene& it) { it.base.summary.syscalls_per_request = count; };
}
Change switches(double count) {
  return [=](Scene& it) { it.s.voluntary_switches_per_request = count - 0.25; };
}
Change counted(const char* what, std::uint64_t times) {
  return [=](Scene& it) { it.other.window.counters->at(what) = times; };
}
Change client(double us) {
  return [=](Scene& it) { it.s.client_cpu_us_per_request = us; };
}
// A server that keeps no counters.
void uncounted(Scene& it) {
  it.s.syscalls_per_request.reset();
  it.s.wakeups_per_request.reset();
  it.other.window.counters.reset();
}

// What is said of a scene after changes that all cases share, and some of its own. All sentences
// begin with `head`.
struct Said {
  std::vector<Change> changes;
  std::string sentence;
};
void check(const std::vector<Change>& first, const std::string& head,
           const std::vector<Said>& cases) {
  for (const Said& one : cases) {
    Scene scene;
    for (const Change& change : first) change(scene);
    for (const Change& change : one.changes) change(scene);
    CHECK(scene.said() == head + one.sentence);
  }
}

void check_unit_costs(const nlohmann::json& probe, bool syscall, bool wake) {
  const UnitCosts costs = unit_costs({{"probe", probe}});
  CHECK(costs.syscall_us.has_value() == syscall);
  CHECK(costs.switch_us.has_value() == wake);
}

}  // namespace

TEST_CASE("what things cost comes from the probe", "[explain]") {
  check_unit_costs({{"syscall_ns", 100}, {"wake_same_cpu", {{"median_us", 1.2}}}}, true, true);
  check_unit_costs({{"syscall_ns", 100}}, true, false);
  check_unit_costs({{"wake_same_cpu", {{"median_us", 1.2}}}}, false, false);
  check_unit_costs({{"syscall_ns", nullptr}, {"wake_same_cpu", nullptr}}, false, false);
  check_unit_costs({{"syscall_ns", 900}, {"wake_same_cpu", {{"median_us", 1.2}}}}, true, false);
  check_unit_costs(nlohmann::json::object(), false, false);
}

TEST_CASE("a row that costs more or less, and what accounts for it", "[explain]") {
  const auto recv = [](Scene& it) { it.s.syscalls_by_kind["recv"] = 11; };
  const auto no_kinds = [](Scene& it) { it.s.syscalls_by_kind.clear(); };
  const auto workers = [](Scene& it) { it.s.workers_us_per_request = 6; };
  check({slower(1.8)}, "1.80 times the CPU (+8.00 us)",
        {{{switches(5)}, ": 5.00 context switches per request against 1.00, about 50 % of it"},
         {{switches(10)},
          ": 10.0 context switches per request against 1.00, enough to account for it"},
         // Two of them, the dearer first, and the kind of call.
         {{switches(3), calls(12), recv},
          ": 3.00 context switches per request against 1.00, 12.0 system calls against 2.00 (recv "
          "differs most), about 40 % of it"},
         // Less what it has less of: 4 - 2 of 8.
         {{switches(5), calls(0), no_kinds, base_calls(20)},
          ": 5.00 context switches per request against 1.00, about 30 % of it"},
         // Far too little for it; undone by what it has less of.
         {{switches(1.25)}, "; no counter accounts for it"},
         {{switches(3), base_calls(22)},
          " although 2.00 system calls per request against 22.0; no counter accounts for it"},
         {{workers}, ": 6.00 us in kernel threads per request against 0, about 80 % of it"},
         // What a job costs is not known.
         {{switches(3), counted("pool_jobs", 1'000'000)},
          ": 3.00 context switches per request against 1.00, about 30 % of it; also 1.00 jobs in "
          "the thread pool against 0"}});
  check({cpu(Verdict::faster, 0.96)}, "4.0 % less CPU (-0.400 us)",
        {{{calls(0.03)}, ": 0.030 system calls per request against 2.00, about 50 % of it"},
         {{calls(4)},
          " although 4.00 system calls per request against 2.00; no counter accounts for it"}});
}

TEST_CASE("what another row has without the effect is no cause", "[explain]") {
  const std::string cause =
      "4.0 % less CPU (-0.400 us): 0.030 system calls per request against 2.00, about 50 % of it";
  const std::string beside =
      "4.0 % less CPU (-0.400 us) beside 0.030 system calls per request against 2.00; third has as "
      "few without that effect";
  Scene scene;
  scene.cpu(Verdict::faster, 0.96);
  calls(0.03)(scene);
  CellRecord cell = scene.cell;
  Result& third = cell.results.emplace_back(row("third"));
  third.summary.syscalls_per_request = 0.1;
  const auto said = [&] { return explain(scene.run, cell, cell.results[1]); };
  CHECK(said() == cause);  // the third has no interval
  const auto with = [&](double low, double high) {
    third.verdicts.cpu = judgement(Verdict::none, 1, "noise");
    third.verdicts.cpu->low = low;
    third.verdicts.cpu->high = high;
    return said();
  };
  CHECK(with(0.995, 1.005) == beside);
  CHECK(with(1.2, 1.3) == beside);
  CHECK(with(0.97, 1.03) == cause);  // the effect may be there
  CHECK(with(0.9, 0.95) == cause);
  third.summary.voluntary_switches_per_request = 3;
  CHECK(with(1.2, 1.22) == cause);  // it has 2.25 us of switches besides
  third.summary.voluntary_switches_per_request = 0.75;
  third.summary.syscalls_per_request = 1.5;  // far less of a saving
  CHECK(with(0.995, 1.005) == cause);
}

TEST_CASE("no counter accounts for it", "[explain]") {
  const auto user_time = [](Scene& it) { it.other.window.user_ns += 1'000'000'000; };
  const auto few_ticks = [](Scene& it) {
    for (Result* result : {&it.base, &it.other}) {
      result->window.requests = 10'000;
      result->window.user_ns = 10'000'000;
      result->window.system_ns = 90'000'000;
    }
    it.other.window.user_ns = 20'000'000;
  };
  check({slower(1.1)}, "10 % more CPU (+1.00 us)",
        {{{}, "; no counter accounts for it"},
         {{user_time}, "; user time +1.00 us (sampled)"},
         {{few_ticks}, "; no counter accounts for it"},
         {{calls(1), counted("enobufs", 500'000)},
          " although 1.00 system calls per request against 2.00; 0.500 receives without a buffer "
          "against 0"},
         {{uncounted}, "; no figure known of both accounts for it"},
         {{uncounted, switches(1.5)},
          ": 1.50 context switches per request against 1.00, about 50 % of it"}});
}

TEST_CASE("equal CPU", "[explain]") {
  const Change equal = cpu(Verdict::equivalent, 1);
  const auto swap_times = [](Scene& it) {
    for (Result* result : {&it.base, &it.other}) {
      std::swap(result->window.user_ns, result->window.system_ns);
    }
  };
  const auto no_probe = [](Scene& it) { it.run.environment.clear(); };
  // Too little to be expected to show.
  check({equal}, "equal CPU; no counter differs much", {{{}, ""}, {{calls(1.3)}, ""}});
  check({equal, calls(0.03)}, "0.030 system calls per request against ",
        {{{}, "2.00, yet equal CPU: the TCP stack dominates"},
         {{swap_times}, "2.00, yet equal CPU"},      // the programs themselves do
         {{base_calls(60)}, "60.0, yet equal CPU"},  // entering the kernel does
         {{no_probe}, "2.00, yet equal CPU"}});
}

TEST_CASE("CPU is not told apart, something else is", "[explain]") {
  const auto pace = [](Scene& it) {
    it.other.verdicts.throughput = judgement(Verdict::slower, 0.8);
  };
  const auto p99 = [](Scene& it) { it.other.verdicts.p99 = judgement(Verdict::slower, 2); };
  const auto split = [](Scene& it) { it.run.placement.used = "split"; };
  const auto waits = [](Scene& it) { it.s.run_delay_us_per_request = 9; };
  const Change equal = cpu(Verdict::equivalent, 1.01);
  check({equal, pace}, "equal CPU but 20 % fewer requests per second",
        {{{client(11)},
          ": server and client take 21.1 us of CPU per request against 18.0, about 60 % of it"},
         {{}, "; CPU time does not account for it"},
         {{split}, ""}});
  // Of CPU that has no verdict no share is told.
  check({cpu(Verdict::none, 1.01, "noise"), pace},
        "no verdict on CPU, but 20 % fewer requests per second",
        {{{client(11)}, "; server and client take 21.1 us of CPU per request against 18.0"}});
  check({equal, p99}, "equal CPU but 2.00 times the p99",
        {{{}, ""}, {{waits}, "; 9.00 us per request in the run queue against 3.00"}});
}

TEST_CASE("an open loop tells how busy the servers are", "[explain]") {
  const auto open = [](Scene& it) { it.cell.shape.rate = 50'000; };
  check({slower(1.2), open}, "20 % more CPU (+2.00 us, 60 % of a CPU against 50 %)",
        {{{}, "; no counter accounts for it"}});
}

TEST_CASE("no verdict, no cause", "[explain]") {
  const auto quick = [](Scene& it) { it.s.ratio_cpu = 0.9; };
  const auto copy = [](Scene& it) {
    it.cpu(Verdict::none, 0.99, "the baseline's second copy");
    it.other.verdicts.cpu->low = 0.97;
    it.other.verdicts.cpu->high = 1.02;
    it.other.variant = "epoll (A/A)";
  };
  check({calls(0.03)}, "",
        {{{cpu(Verdict::none, 0.9, "could have seen 17.1 %")},
          "no verdict on CPU: could have seen 17.1 %; 0.030 system calls per request against 2.00"},
         {{quick}, "CPU x 0.90; 0.030 system calls per request against 2.00"},
         {{quick, uncounted}, ""},
         {{copy},
          "the same server again, CPU x 0.990 [0.970, 1.020]: a difference of this size says "
          "nothing"}});
}

TEST_CASE("where there is nothing to compare, nothing is said", "[explain]") {
  Scene scene;
  scene.cpu(Verdict::slower, 1.5);
  CHECK_FALSE(scene.said().empty());
  CHECK(explain(scene.run, scene.cell, scene.base).empty());
  SECTION("the row failed") {
    scene.other.error = "died";
  }
  SECTION("the baseline failed") {
    scene.base.error = "died";
  }
  SECTION("no baseline") {
    scene.run.plan.baseline = "threads";
  }
  SECTION("the baseline has no requests") {
    scene.base.summary.server_cpu_us_per_request.reset();
  }
  CHECK(scene.said().empty());
}

TEST_CASE("the sentences of a stored run are as expected", "[explain]") {
  const RunRecord run = read_run("tests/data/run-explained.json");
  std::string said;
  for (const CellRecord& cell : run.cells) {
    said += cell_title(cell.shape) + "\n";
    for (const Result& result : cell.results) {
      said += result.variant + ": " + explain(run, cell, result) + "\n";
    }
  }
  CHECK(said == slurp("tests/data/run-explained.txt"));
}

TEST_CASE("no sentence names a figure that is absent, or what is no number", "[explain]") {
  std::mt19937_64 random(1);  // the same cases every time
  const auto one_in = [&](unsigned n) { return random() % n == 0; };
  const auto number = [&]() -> std::optional<double> {
    if (one_in(4)) return std::nullopt;
    if (one_in(6)) return 0;
    return std::pow(10, static_cast<double>(random() % 7000) / 1000 - 4);
  };
  const auto some = [&](Result& result) {
    for (const SummaryField& field : summary_fields()) result.summary.*field.value = number();
    result.window.requests = one_in(8) ? 0 : random() % 1'000'000;
    result.window.user_ns = one_in(4) ? 0 : random() % 10'000'000'000;
    result.window.system_ns = one_in(4) ? 0 : random() % 10'000'000'000;
    if (one_in(3)) result.window.counters.reset();
    if (!result.window.counters) return;
    for (auto& [name, count] : *result.window.counters)
      count = one_in(3) ? 0 : random() % 1'000'000;
  };
  unsigned said = 0;
  for (unsigned i = 0; i < 600; ++i) {
    Scene scene;
    some(scene.base);
    some(scene.other);
    if (one_in(3)) scene.run.environment.clear();
    if (one_in(3)) scene.cell.shape.rate = 1000;
    for (const auto judged : {&Verdicts::cpu, &Verdicts::throughput, &Verdicts::p99}) {
      if (one_in(3)) continue;
      scene.other.verdicts.*judged = judgement(static_cast<Verdict>(random() % 4),
                                               std::max(0.01, number().value_or(1)), "noise");
    }
    const std::string text = scene.said();
    INFO(text);
    said += text.empty() ? 0 : 1;
    bool right = true;
    for (const char* wrong : {"nan", "inf", "--", "+-", "\n", "  ", " 0 % of it"}) {
      right = right && !contains(text, wrong);
    }
    const auto needs = [&](const char* words, std::optional<double> Summary::*figure) {
      if (!contains(text, words)) return;
      right = right && (scene.base.summary.*figure).has_value() && (scene.s.*figure).has_value();
    };
    needs("system calls", &Summary::syscalls_per_request);
    needs("context switches", &Summary::voluntary_switches_per_request);
    needs("context switches", &Summary::involuntary_switches_per_request);
    needs("wake-ups", &Summary::wakeups_per_request);
    needs("kernel threads", &Summary::workers_us_per_request);
    needs("run queue", &Summary::run_delay_us_per_request);
    needs("of a CPU", &Summary::requests_per_s);
    needs("server and client", &Summary::client_cpu_us_per_request);
    needs("CPU", &Summary::server_cpu_us_per_request);
    for (const char* words : {"thread pool", "without a buffer", "re-armed", "short sends"}) {
      if (!contains(text, words)) continue;
      right = right && scene.base.window.counters && scene.other.window.counters;
    }
    CHECK(right);
  }
  CHECK(said > 150);
}

TEST_CASE("compare tells which counters changed", "[explain]") {
  const Scene scene;
  Result b = scene.other;
  b.summary.syscalls_per_request = 1.1;
  Verdicts verdicts;
  verdicts.cpu = judgement(Verdict::none, 0.9, "noise");
  const auto said = [&] {
    return explain_change(scene.run, scene.cell.shape, scene.base, b, verdicts);
  };
  CHECK(said().empty());  // nothing is decided
  verdicts.throughput = judgement(Verdict::equivalent, 1);
  CHECK(said().empty());
  verdicts.cpu = judgement(Verdict::faster, 0.9);
  CHECK(said() ==
        "10 % less CPU (-1.00 us): 1.10 system calls per request against 2.00, about 10 % of it");
  b.error = "died";
  CHECK(said().empty());
}
