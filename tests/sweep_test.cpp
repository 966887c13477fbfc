// The sweep: the search over made-up servers, the judgement of a step, and a small one end to end.
#include "harness/sweep.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "harness/run_folder.hpp"
#include "harness/table.hpp"
#include "tests/bench_program.hpp"
#include "tests/catch.hpp"
#include "tests/helpers.hpp"
#include "tests/load_helpers.hpp"
#include "tests/sample_run.hpp"

using namespace echolab::harness;
using namespace std::chrono_literals;

namespace {

using Names = std::vector<std::string>;
// What a variant shows at a rate.
using Truth = std::function<Slo(const std::string& variant, double rate)>;

struct Found {
  SweepRecord sweep;
  bool complete = false;
  std::vector<std::pair<double, Names>> offered;

  [[nodiscard]] const SweepResult& of(const std::string& variant) const {
    const auto found = std::find_if(sweep.results.begin(), sweep.results.end(),
                                    [&](const SweepResult& r) { return r.variant == variant; });
    REQUIRE(found != sweep.results.end());
    return *found;
  }
  [[nodiscard]] std::size_t times(const std::string& variant) const {
    return static_cast<std::size_t>(
        std::count_if(offered.begin(), offered.end(), [&](const auto& step) {
          return std::count(step.second.begin(), step.second.end(), variant) > 0;
        }));
  }
};

Plan plan_with_peak(double rate) {
  Plan plan;
  plan.sweep = {99, 1ms};
  plan.rates.clear();
  plan.peaks = {{64, 64, "a", rate}, {64, 64, "b", rate / 2}, {64, 64, kGenerator, 2 * rate}};
  return plan;
}

Found find(const Names& variants, const Truth& truth, std::size_t most_steps = 1000,
           bool refine = true) {
  Found found;
  found.complete =
      search(found.sweep, variants, sweep_rates(plan_with_peak(100'000), 64, 64), refine,
             [&](double rate, const Names& to) -> std::optional<std::vector<SweepStep>> {
               if (found.offered.size() >= most_steps) return std::nullopt;
               found.offered.emplace_back(rate, to);
               std::vector<SweepStep> steps;
               for (const std::string& variant : to) {
                 steps.push_back({rate, variant, truth(variant, rate), {}, 0, 0, "because"});
               }
               return steps;
             });
  return found;
}

Truth up_to(std::map<std::string, double> limits) {
  return [limits = std::move(limits)](const std::string& variant, double rate) {
    return rate <= limits.at(variant) ? Slo::met : Slo::missed;
  };
}

// A row of one step, fit, with `beyond` of 20 000 samples at 2 ms and the rest at 0.1 ms.
Result row_with(std::uint64_t beyond) {
  Result row;
  row.variant = "a";
  for (std::uint32_t i = 0; i < 5; ++i) {
    row.slices.push_back(sample_slice(i, 4000, 1'000'000));
  }
  row.latency.record(100'000, 20'000 - beyond);
  row.latency.record(2'000'000, beyond);
  return row;
}

}  // namespace

TEST_CASE("an objective is read, or refused in one line", "[sweep]") {
  const SweepGoal goal = parse_slo("p99<1ms");
  CHECK(goal.percentile == 99);
  CHECK(goal.limit == 1ms);
  CHECK(parse_slo("p99.9<250us").percentile == 99.9);
  CHECK(parse_slo("p50<1.5ms").limit == 1500us);
  CHECK(slo_text(99.9, 250'000) == "p99.9 < 250 us");
  for (const char* bad : {"", "p99", "p99<", "<1ms", "p99<1", "p99<1s", "p98<1ms", "p99>1ms",
                          "p99<0ms", "p99<-1ms", "p99<xms", "99<1ms", "p99<1ms<2ms"}) {
    const std::string line = error_of([&] { parse_slo(bad); });
    INFO(bad);
    CHECK(contains(line, "such as p99<1ms"));
    CHECK_FALSE(contains(line, "\n"));
  }
}

TEST_CASE("the steps are common, follow from the highest peak and repeat", "[sweep][plan]") {
  const std::vector<double> rates = sweep_rates(plan_with_peak(100'000), 64, 64);
  CHECK(rates == sweep_rates(plan_with_peak(100'000), 64, 64));
  REQUIRE(rates.size() == 10);
  CHECK(rates.back() == 120'000);
  CHECK(std::is_sorted(rates.begin(), rates.end()));
  for (std::size_t i = 1; i < rates.size(); ++i) {
    CHECK(rates[i] / rates[i - 1] == Approx(1.2).epsilon(1e-3));
  }
  CHECK(sweep_rates(plan_with_peak(100'000), 1, 64).empty());  // no peak is known
  Plan quick = plan_with_peak(100'000);
  quick.quick = true;
  CHECK(sweep_rates(quick, 64, 64).size() == 5);
  Plan slow = plan_with_peak(100);  // too few requests a slice: all steps become the least rate
  CHECK(sweep_rates(slow, 64, 64) == std::vector<double>{500});
}

TEST_CASE("a plan with a sweep has a cell for each, and no rates of its own", "[sweep][plan]") {
  Plan plan = plan_with_peak(100'000);
  plan.contenders = {{"epoll", ""}, {"threads", ""}};
  plan.connections = {1, 64};
  plan.sizes = {64, 4096};
  CHECK(plan.expand().size() == 4);
  plan.calibrated = true;
  CHECK(plan.expand().size() == 4);
  plan.rates = {1000};
  CHECK(contains(error_of([&] { (void)plan.expand(); }), "a sweep chooses its own"));
  plan.quick = false;
  CHECK(sweep_time(plan, 1) <= 180s);
  plan.cap = 5s;
  CHECK(sweep_time(plan, 4) == 5s);
}

TEST_CASE("a search finds every limit within 5 %", "[sweep]") {
  const std::map<std::string, double> limits{{"a", 91'234}, {"b", 40'000}, {"c", 91'000}};
  const Found found = find({"a", "b", "c"}, up_to(limits));
  CHECK(found.complete);
  for (const auto& [variant, limit] : limits) {
    INFO(variant);
    const SweepResult& result = found.of(variant);
    CHECK(result.highest_rate_per_s.value() <= limit);
    CHECK(result.lowest_missed_rate_per_s.value() > limit);
    CHECK(*result.lowest_missed_rate_per_s / *result.highest_rate_per_s <= 1.05);
    CHECK(result.why == fmt::format("missed at {}: because", *result.lowest_missed_rate_per_s));
  }
  std::set<double> rates;
  for (const auto& step : found.offered) CHECK(rates.insert(step.first).second);  // once each
  // Those whose brackets are the same have shared the steps in it.
  CHECK(found.times("a") == found.times("c"));
  CHECK(found.offered.size() <= 10 + 2 * 2);
}

TEST_CASE("who misses twice in a row is not offered more", "[sweep]") {
  const Found found = find({"a", "b"}, up_to({{"a", 1e9}, {"b", 30'000}}), 1000, false);
  const std::vector<double> ladder = sweep_rates(plan_with_peak(100'000), 64, 64);
  const auto met = static_cast<std::size_t>(
      std::count_if(ladder.begin(), ladder.end(), [](double rate) { return rate <= 30'000; }));
  CHECK(found.times("b") == met + 2);
  CHECK(found.times("a") == ladder.size());
}

TEST_CASE("never met and always met are said, and cost no more steps", "[sweep]") {
  const Found found = find({"a", "b"}, up_to({{"a", 1e9}, {"b", 0}}));
  CHECK(found.of("a").highest_rate_per_s.value() == 120'000);
  CHECK_FALSE(found.of("a").lowest_missed_rate_per_s.has_value());
  CHECK(found.of("a").why == "met at the highest rate offered");
  CHECK_FALSE(found.of("b").highest_rate_per_s.has_value());
  CHECK(found.of("b").lowest_missed_rate_per_s.value() == found.offered.front().first);
  CHECK(contains(found.of("b").why, "missed at the lowest rate offered"));
  CHECK(found.offered.size() == 10);
}

TEST_CASE("what is not known is never met, nor missed", "[sweep]") {
  const Found found = find({"a", "b"}, [](const std::string& variant, double rate) {
    if (variant == "b") return Slo::unknown;
    return rate < 60'000 ? Slo::met : Slo::unknown;
  });
  CHECK(found.of("a").highest_rate_per_s.value() < 60'000);
  CHECK_FALSE(found.of("a").lowest_missed_rate_per_s.has_value());
  CHECK(contains(found.of("a").why, "not known at"));
  CHECK_FALSE(found.of("b").highest_rate_per_s.has_value());
  CHECK_FALSE(found.of("b").lowest_missed_rate_per_s.has_value());
  CHECK(found.times("b") == 10);  // unknown is no miss: it goes on
}

TEST_CASE("one miss below a rate that was met is noise, and is said", "[sweep]") {
  const std::vector<double> ladder = sweep_rates(plan_with_peak(100'000), 64, 64);
  const Found found = find({"a"}, [&](const std::string&, double rate) {
    return rate == ladder[3] || rate > ladder[7] ? Slo::missed : Slo::met;
  });
  CHECK(found.of("a").highest_rate_per_s.value() >= ladder[7]);
  CHECK(found.of("a").lowest_missed_rate_per_s.value() > ladder[7]);
  CHECK(contains(found.of("a").why, fmt::format("missed at {} too", ladder[3])));
}

TEST_CASE("a noisy server ends the search all the same", "[sweep]") {
  std::mt19937_64 rng(7);
  for (int run = 0; run < 50; ++run) {
    const Found found = find({"a", "b", "c"}, [&](const std::string&, double rate) {
      const double noise = std::uniform_real_distribution<double>(0.7, 1.3)(rng);
      return rate * noise < 70'000 ? Slo::met : Slo::missed;
    });
    CHECK(found.complete);
    CHECK(found.offered.size() < 30);
    for (const SweepResult& result : found.sweep.results) {
      if (!result.highest_rate_per_s || !result.lowest_missed_rate_per_s) continue;
      CHECK(*result.lowest_missed_rate_per_s > *result.highest_rate_per_s);
      CHECK(*result.highest_rate_per_s < 70'000 / 0.7);
    }
  }
}

TEST_CASE("a search that is stopped says how far it came", "[sweep]") {
  const Found none = find({"a"}, up_to({{"a", 50'000}}), 0);
  CHECK_FALSE(none.complete);
  CHECK(contains(none.of("a").why, "not measured"));
  const Found early = find({"a"}, up_to({{"a", 50'000}}), 3);
  CHECK_FALSE(early.complete);
  CHECK(early.of("a").highest_rate_per_s.value() == early.offered.back().first);
  const Found late = find({"a"}, up_to({{"a", 50'000}}), 7);  // two misses end the ladder
  CHECK(late.complete);
  CHECK(contains(late.of("a").why, "nothing was offered between"));
}

TEST_CASE("a server that fails is out", "[sweep]") {
  const Found found = find({"a"}, [](const std::string&, double rate) {
    return rate < 40'000 ? Slo::met : Slo::failed;
  });
  CHECK(found.of("a").highest_rate_per_s.value() < 40'000);
  CHECK(contains(found.of("a").why, "failed at"));
  CHECK(found.offered.back().first < 60'000);
}

TEST_CASE("a step is judged by its percentile, its blocks and its gates", "[sweep]") {
  Plan plan = plan_with_peak(100'000);
  const std::vector<std::uint64_t> good{100'000, 100'000, 100'000};
  const auto judged = [&](const Result& row, const std::vector<std::uint64_t>& blocks) {
    return judge_step(row, 50'000, plan, blocks);
  };
  SECTION("below the limit") {
    const SweepStep step = judged(row_with(150), good);
    CHECK(step.slo == Slo::met);
    CHECK(step.blocks_met == 3);
    CHECK(step.why.empty());
    CHECK(step.percentile_ns.value() < 110'000);
  }
  SECTION("at or above it") {
    const SweepStep step = judged(row_with(300), good);
    CHECK(step.slo == Slo::missed);
    CHECK(contains(step.why, "p99 is 2"));
  }
  SECTION("met by luck") {
    const SweepStep step = judged(row_with(150), {100'000, 2'000'000, 2'000'000});
    CHECK(step.slo == Slo::missed);
    CHECK(step.why == "met in 1 of 3 blocks only");
    CHECK(judged(row_with(150), {100'000, 2'000'000}).slo == Slo::missed);  // half is no majority
  }
  SECTION("too few samples") {
    Result row = row_with(0);
    row.latency.clear();
    row.latency.record(100'000, 9'000);  // 90 beyond p99
    const SweepStep step = judged(row, good);
    CHECK(step.slo == Slo::unknown);
    CHECK(contains(step.why, "9000 samples are too few for p99"));
    CellRecord cell{{64, 64, kOpenLoopDepth, 50'000, 0}, {row}};
    CHECK_FALSE(enough_samples(cell, *plan.sweep));
    cell.results = {row_with(0)};
    CHECK(enough_samples(cell, *plan.sweep));
  }
  SECTION("a rate that it does not keep up with is missed, whatever the percentile") {
    Result row = row_with(150);
    row.gates.push_back({"keeps_up", 0.99, 0.8, 0, false});
    row.summary.achieved_share = 0.8;
    row.no_verdict = "kept up with 80.0 % of the offered rate";
    const SweepStep step = judged(row, good);
    CHECK(step.slo == Slo::missed);
    CHECK(contains(step.why, "kept up with 80.0 %"));
  }
  SECTION("what the machine spoiled is not known, though it did not keep up either") {
    Result row = row_with(150);
    row.gates.push_back({"keeps_up", 0.99, 0.8, 0, false});
    for (SliceRow& slice : row.slices) slice.gate = Gate::steal;
    row.no_verdict = "5 of 5 slices dropped";
    CHECK(judged(row, good).slo == Slo::unknown);
  }
  SECTION("a client at its limit is not known") {
    Result row = row_with(150);
    row.no_verdict = "5 of 5 slices dropped";
    for (SliceRow& slice : row.slices) slice.gate = Gate::client;
    CHECK(judged(row, good).slo == Slo::unknown);
  }
  SECTION("one that broke") {
    Result row = row_with(150);
    row.error = "a: it died";
    CHECK(judged(row, good).slo == Slo::failed);
  }
}

TEST_CASE("a sweep survives being written and read, and is shown", "[sweep][record]") {
  RunRecord run = sample_run();
  run.plan.sweep = {99.9, 250us};
  SweepRecord sweep = begin_sweep({64, 64, kOpenLoopDepth, 0, 1}, *run.plan.sweep);
  sweep.results = {{"epoll", 20'000, 25'000, "missed at 25000: p99.9 is 300 us"},
                   {"other", {}, {}, "not known"}};
  sweep.steps = {{20'000, "epoll", Slo::met, 90'000, 5, 5, ""},
                 {20'000, "other", Slo::unknown, {}, 0, 5, "stolen"},
                 {25'000, "epoll", Slo::missed, 300'000, 0, 5, "p99.9 is 300 us"}};
  run.sweeps = {sweep};
  const nlohmann::json document = nlohmann::json::parse(to_text(run));
  CHECK(document["plan"]["sweep"] == nlohmann::json({{"percentile", 99.9}, {"limit_ns", 250'000}}));
  CHECK(document["sweeps"][0]["results"][1]["highest_rate_per_s"].is_null());
  CHECK(document["sweeps"][0]["results"][0]["lowest_missed_rate_per_s"] == 25'000);
  CHECK(to_text(run_from_json(document)) == to_text(run));
  for (const std::string& text : {terminal_table(run), markdown_table(run)}) {
    CHECK(contains(text, "Sweep: 64 connections, 64 B: the highest rate with p99.9"));
    CHECK(contains(text, "300 missed"));
    CHECK(contains(text, "met up to 20000 requests/s"));
  }
  nlohmann::json damaged = document;
  damaged["sweeps"][0]["steps"][0]["outcome"] = "perhaps";
  CHECK(contains(error_of([&] { run_from_json(damaged); }), "sweeps[0].steps[0].outcome"));
  damaged = document;
  damaged["sweeps"][0].erase("results");
  CHECK(contains(error_of([&] { run_from_json(damaged); }), "results"));
}

TEST_CASE("a server that stalls is found by offering it real load", "[sweep]") {
  // Every chunk costs 2 ms in the server's only thread, so that p50 is never below 1 ms.
  const TestServer server([](Stream&, std::string&) {
    std::this_thread::sleep_for(2ms);
    return Then::go_on;
  });
  Plan plan = plan_with_peak(1000);
  plan.slices = 1;
  plan.slice = 300ms;
  plan.sweep = {50, 1ms};
  SweepRecord sweep = begin_sweep({4, 64, kOpenLoopDepth, 0, 1}, *plan.sweep);
  search(sweep, {"stalling"}, {1000, 1200}, true,
         [&](double rate, const Names&) -> std::optional<std::vector<SweepStep>> {
           const auto load = connected(server, open(4, 64, rate, Arrivals::poisson));
           Result row;
           row.variant = "stalling";
           const Slice slice = load->run(plan.slice, row.latency, nullptr);
           CHECK(slice.requests > 0);
           return std::vector<SweepStep>{judge_step(row, rate, plan, {row.latency.quantile(0.5)})};
         });
  REQUIRE(sweep.steps.size() == 2);
  for (const SweepStep& step : sweep.steps) CHECK(step.slo == Slo::missed);
  CHECK_FALSE(sweep.results.at(0).highest_rate_per_s.has_value());
}

TEST_CASE("bench --sweep from end to end", "[sweep][bench]") {
  const TemporaryFolder folder;
  const std::string late = fmt::format(
      "late='{}' --backend epoll --delay 5ms --listen 127.0.0.1:{{port}}", program("echo-server"));
  const Output output =
      bench({"--sweep", "--slo", "p50<1ms", "--quick", "--backends", "epoll", "--server", late,
             "--connections", "2", "--slices", "6", "--seed", "1", "-o", folder.file("run")});
  INFO(output.err);
  CHECK(output.exit_status == 0);
  const RunRecord run = read_run(folder.file("run"));
  REQUIRE(run.sweeps.size() == 1);
  const SweepRecord& sweep = run.sweeps[0];
  CHECK(sweep.connections == 2);
  CHECK(sweep.limit_ns == 1'000'000);
  REQUIRE(sweep.results.size() == 2);
  CHECK(sweep.results[1].variant == "late");
  CHECK_FALSE(sweep.results[1].highest_rate_per_s.has_value());  // nothing is below 5 ms
  CHECK_FALSE(run.cells.empty());
  for (const CellRecord& cell : run.cells) {
    CHECK(cell.shape.rate > 0);
    for (const Result& result : cell.results) {
      const auto same = [&](const SweepStep& s) {
        return s.rate_per_s == cell.shape.rate && s.variant == result.variant;
      };
      CHECK(std::count_if(sweep.steps.begin(), sweep.steps.end(), same) == 1);
    }
  }
  CHECK(contains(output.out, "Sweep: 2 connections, 64 B"));
  CHECK(contains(slurp(folder.file("run/table.md")), "- late: p50"));
}

TEST_CASE("a sweep that has no time is marked partial", "[sweep][bench]") {
  const TemporaryFolder folder;
  const Output output = bench({"--sweep", "--slo", "p99<1ms", "--backends", "epoll", "--cap",
                               "10ms", "-o", folder.file("run")});
  INFO(output.err);
  CHECK(contains(output.err, "the time was up"));
  const RunRecord run = read_run(folder.file("run"));
  CHECK(run.partial);
  REQUIRE(run.sweeps.size() == 1);
  CHECK(contains(run.sweeps[0].results.at(0).why, "not measured"));
}

TEST_CASE("a sweep's dry run says the steps; what cannot be meant is one line", "[sweep][bench]") {
  const Output dry = bench({"--sweep", "--slo", "p99<1ms", "--dry-run"});
  CHECK(dry.exit_status == 0);
  CHECK(contains(dry.out, "sweep for p99 < 1 ms: steps at 23 %, 28 %"));
  CHECK(contains(dry.out, "c64/s64: threads, epoll"));
  bench_refuses({"--sweep"}, "--sweep needs --slo");
  bench_refuses({"--slo", "p99<1ms"}, "--slo needs --sweep");
  bench_refuses({"--sweep", "--slo", "fast"}, "--slo 'fast'");
  bench_refuses({"--sweep", "--slo", "p99<1ms", "--rates", "1k"}, "leave out --rates");
}
