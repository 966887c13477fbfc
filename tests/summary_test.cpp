// Gates and summaries as pure functions of the record.
#include "harness/summary.hpp"

#include <cmath>

#include "harness/gates.hpp"
#include "harness/table.hpp"
#include "tests/catch.hpp"
#include "tests/helpers.hpp"
#include "tests/sample_run.hpp"

using namespace echolab::harness;

namespace {

constexpr Circumstances kShared{true, 1, 10'000'000};
constexpr Circumstances kApart{false, 2, 10'000'000};

bool near(double a, double b) {
  return std::abs(a - b) < 1e-9 * std::abs(b);
}

}  // namespace

TEST_CASE("Little's law is checked in closed loop", "[gates]") {
  const CellShape closed{1, 64, 1, 0};
  SliceRow row = sample_slice(0, 100, 1'000'000);
  CHECK(judge_slice(row, closed, kShared, 0) == Gate::kept);
  row.inflight_mean = 1.04;
  CHECK(judge_slice(row, closed, kShared, 0) == Gate::kept);
  row.inflight_mean = 1.06;
  CHECK(judge_slice(row, closed, kShared, 0) == Gate::little);
  row.inflight_mean = 0.94;
  CHECK(judge_slice(row, closed, kShared, 0) == Gate::little);
  row.requests = 0;
  CHECK(judge_slice(row, closed, kShared, 0) == Gate::empty);
}

TEST_CASE("an open loop must be offered in full, by a client that is not saturated", "[gates]") {
  const CellShape open{1, 64, kOpenLoopDepth, 1000};
  SliceRow row = sample_slice(0, 1000, 1'000'000);
  row.due = 1000;
  CHECK(judge_slice(row, open, kApart, 0) == Gate::kept);
  row.due = 1020;
  CHECK(judge_slice(row, open, kApart, 0) == Gate::achieved);
  row.due = 1000;
  row.client_cpu_ns = 9'800'000;  // of 10 ms
  CHECK(judge_slice(row, open, kApart, 0) == Gate::client);
  row.client_cpu_ns = 5'000'000;
  row.server_cpu_ns = 4'900'000;  // on the same CPU that leaves nothing
  CHECK(judge_slice(row, open, kApart, 0) == Gate::kept);
  CHECK(judge_slice(row, open, kShared, 0) == Gate::client);
  // A sweep asks what both can do together.
  constexpr Circumstances kPair{true, 1, 10'000'000, true};
  CHECK(judge_slice(row, open, kPair, 0) == Gate::kept);
  row.due = 1020;
  CHECK(judge_slice(row, open, kPair, 0) == Gate::achieved);
}

TEST_CASE("a sweep's circumstances are a pair's where it shares the CPU", "[gates]") {
  Plan plan;
  const StealRecord steal;
  const PlacementRecord same{"auto", "same", {0}, {0}, ""}, split{"auto", "split", {0}, {1}, ""};
  CHECK_FALSE(circumstances(plan, same, steal).pair);
  plan.sweep = SweepGoal{99, std::chrono::milliseconds(1)};
  CHECK(circumstances(plan, same, steal).pair);
  CHECK_FALSE(circumstances(plan, split, steal).pair);
}

TEST_CASE("a closed loop on one CPU must have had it to itself", "[gates]") {
  const CellShape closed{1, 64, 1, 0};
  const CellShape open{1, 64, kOpenLoopDepth, 1000};
  SliceRow row = sample_slice(0, 100, 6'500'000);
  row.client_cpu_ns = 2'000'000;  // 85 % together
  CHECK(judge_slice(row, closed, kShared, 0) == Gate::kept);
  row.server_cpu_ns = 5'500'000;  // 75 %
  CHECK(judge_slice(row, closed, kShared, 0) == Gate::busy);
  // If it was the server that slept, there were idle ticks.
  CHECK(judge_slice(row, closed, kShared, 0.1) == Gate::kept);
  row.server_cpu_ns = 500'000;
  CHECK(judge_slice(row, closed, kShared, 0.1) == Gate::busy);
  CHECK(judge_slice(row, closed, kShared, 0.7) == Gate::kept);
  row.steal_ticks = 1;  // that may have been all of it: the round is judged
  CHECK(judge_slice(row, closed, kShared, 0) == Gate::kept);
  row.steal_ticks = 0;
  row.due = row.requests;
  CHECK(judge_slice(row, open, kShared, 0) == Gate::kept);  // idle time is normal there
}

TEST_CASE("a client on a CPU of its own must not have to wait for it", "[gates]") {
  for (const CellShape& shape : {CellShape{1, 64, 1, 0}, CellShape{1, 64, kOpenLoopDepth, 1000}}) {
    SliceRow row = sample_slice(0, 100, 1'000'000);
    row.due = row.requests;
    row.client_delay_ns = 400'000;  // of 10 ms
    CHECK(judge_slice(row, shape, kApart, 0) == Gate::kept);
    row.client_delay_ns = 600'000;
    CHECK(judge_slice(row, shape, kApart, 0) == Gate::busy);
    row.client_cpu_ns = 8'500'000;
    CHECK(judge_slice(row, shape, kShared, 0) == Gate::kept);  // there it waits for the server
  }
}

TEST_CASE("a row beside a busy process has no verdict and says why", "[gates]") {
  RunRecord run = sample_run();
  const auto judged = [&](CellRecord& cell) -> const Result& {
    summarise(cell, run.plan, run.placement, run.steal);
    return cell.results[0];
  };
  CellRecord& closed = run.cells[0];
  CellRecord& open = run.cells[1];
  CHECK(judged(closed).no_verdict.empty());
  CHECK(judged(open).no_verdict.empty());
  SECTION("slices that fail") {
    for (std::size_t i = 3; i < 5; ++i) closed.results[0].slices[i].gate = Gate::busy;
    CHECK(contains(judged(closed).no_verdict,
                   "3 of 8 slices dropped, 2 because something else ran on the CPU"));
    CHECK(contains(terminal_table(run), "no verdict: busy CPU\n"));
  }
  SECTION("a little less in every slice of a closed loop") {
    for (SliceRow& row : closed.results[0].slices) row.elapsed_ns = 11'600'000;
    CHECK(contains(judged(closed).no_verdict, "something else used 14 % of the CPU"));
    CHECK(contains(terminal_table(run), "no verdict: busy CPU\n"));
  }
  SECTION("an open loop without the idle time that it should have") {
    Result& row = open.results[0];
    for (SliceRow& slice : row.slices) {
      slice.server_cpu_ns = 2'000'000;  // 80 % together
      slice.idle_ticks = slice.round % 2;
    }
    CHECK(judged(open).no_verdict.empty());
    for (SliceRow& slice : row.slices) slice.idle_ticks = 0;
    CHECK(contains(judged(open).no_verdict, "something else used 20 % of the CPU"));
    row.idle_known = false;  // a file from before
    CHECK(judged(open).no_verdict.empty());
  }
  SECTION("too few slices in the time that there was") {
    run.plan.slices = 10;
    CHECK(contains(judged(closed).no_verdict, "only 7 of 10 slices kept"));
  }
}

TEST_CASE("steal is judged by what is certain", "[gates]") {
  constexpr std::uint64_t kTick = 10'000'000, kRound = 100'000'000;
  CHECK_FALSE(stolen(0, kTick, kRound, 1, 0));
  CHECK_FALSE(stolen(1, kTick, kRound, 1, 0));  // may have been a nanosecond
  CHECK(stolen(2, kTick, kRound, 1, 0));        // at least 10 %
  CHECK_FALSE(stolen(2, kTick, kRound, 1, 0.06));
  CHECK(stolen(3, kTick, kRound, 1, 0.06));
  CHECK_FALSE(stolen(2, kTick, 100 * kRound, 1, 0));  // 0.1 %: nothing
}

TEST_CASE("ratios are paired within rounds and spare what has no pair", "[summary]") {
  RunRecord run = sample_run();
  CellRecord& cell = run.cells[0];
  // A machine that becomes ten times slower for both: no ratio of theirs changes.
  for (Result& result : cell.results) {
    for (std::size_t i = 3; i < result.slices.size(); ++i) {
      result.slices[i].elapsed_ns *= 10;
      result.slices[i].server_cpu_ns *= 10;
    }
  }
  cell.results[0].slices[0].gate = Gate::little;  // the baseline lost this one
  summarise(cell, run.plan, run.placement, run.steal);
  CHECK(std::abs(*cell.results[1].summary.ratio_cpu - 2) < 0.001);
  CHECK(std::abs(*cell.results[1].summary.ratio_throughput - 1) < 0.001);
  CHECK(*cell.results[0].summary.ratio_cpu == 1);
}

TEST_CASE("figures that cannot be had are absent", "[summary]") {
  RunRecord run = sample_run();
  CellRecord& cell = run.cells[0];
  const Summary& ours = cell.results[0].summary;
  const Summary& theirs = cell.results[1].summary;
  CHECK(near(*ours.syscalls_per_request, (32028 * 2 + 40) / 32028.0));
  CHECK(near(ours.syscalls_by_kind.at("recv"), 1.0));
  CHECK_FALSE(theirs.syscalls_per_request);
  CHECK_FALSE(theirs.wakeups_per_request);
  CHECK(ours.p99_us);         // 20 013 samples
  CHECK_FALSE(ours.p999_us);  // not 100 beyond it
  CHECK_FALSE(ours.raw_p50_us);
  CHECK(run.cells[1].results[0].summary.raw_p50_us);
}

TEST_CASE("memory per connection is a slope, before anything large was sent", "[summary]") {
  RunRecord run = sample_run();
  CellRecord& cell = run.cells[0];
  Result& result = cell.results[0];
  // 64 connections, of which verification took half a megabyte: that is not theirs.
  CHECK(near(*result.summary.kib_per_connection, 240'000 / 1024.0 / 48));
  CHECK(near(*result.summary.tcp_kib_per_connection, 196'608 / 1024.0 / 48));
  result.window.memory[0].tcp_memory_bytes = 1'000'000;  // somebody else's went away since
  summarise(cell, run.plan, run.placement, run.steal);
  CHECK(result.summary.kib_per_connection);
  CHECK_FALSE(result.summary.tcp_kib_per_connection);
  result.window.memory.clear();
  summarise(cell, run.plan, run.placement, run.steal);
  CHECK_FALSE(result.summary.kib_per_connection);
}

TEST_CASE("too many dropped slices, or an overflow, leave no verdict", "[gates]") {
  RunRecord run = sample_run();
  CellRecord& cell = run.cells[0];
  CHECK(cell.results[0].no_verdict.empty());  // one of eight
  cell.results[0].slices[4].gate = Gate::little;
  (*cell.results[0].window.counters)["cq_overflows"] = 3;
  summarise(cell, run.plan, run.placement, run.steal);
  CHECK(contains(cell.results[0].no_verdict, "2 of 8 slices dropped"));
  CHECK(contains(cell.results[0].no_verdict, "overflowed 3 times"));
}

TEST_CASE("an open loop that falls behind has no verdict", "[gates]") {
  RunRecord run = sample_run();
  CellRecord& cell = run.cells[1];
  CHECK(cell.results[0].no_verdict.empty());
  for (SliceRow& row : cell.results[0].slices) row.elapsed_ns = 12'000'000;
  summarise(cell, run.plan, run.placement, run.steal);
  CHECK(contains(cell.results[0].no_verdict, "of the offered rate"));
}
