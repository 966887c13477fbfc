// Whether a server keeps up with an open loop, and what the table says of rows that lack something.
#include "harness/summary.hpp"
#include "harness/table.hpp"
#include "tests/catch.hpp"
#include "tests/helpers.hpp"
#include "tests/sample_run.hpp"

using namespace echolab::harness;

TEST_CASE("stalls of the machine are not taken for a server that falls behind", "[gates]") {
  RunRecord run = sample_run();
  CellRecord& cell = run.cells[1];
  Result& result = cell.results[0];
  SliceRow row = result.slices[0];
  result.slices.clear();
  const auto add = [&](std::uint64_t late_ns, std::uint64_t latency_ns) {
    row.elapsed_ns = 10'000'000 + late_ns;
    row.latency_mean_ns = latency_ns;
    result.slices.push_back(row);
  };
  SECTION("a stall makes some slices late and others slow: as much in sum") {
    for (int i = 0; i < 20; ++i) {
      for (int quiet = 0; quiet < 8; ++quiet) add(60'000, 60'000);
      add(6'000'000, 400'000);  // the stall began shortly before the end
      add(0, 5'700'000);        // or in the middle
    }
    summarise(cell, run.plan, run.placement, run.steal);
    CHECK(*result.summary.achieved_share > 0.99);
    CHECK(result.no_verdict.empty());
  }
  SECTION("a backlog of 5 % makes all late by that, and slow by half of it") {
    for (int i = 0; i < 50; ++i) {
      add(300'000, 200'000);
      add(700'000, 300'000);
    }
    summarise(cell, run.plan, run.placement, run.steal);
    CHECK(*result.summary.achieved_share < 0.97);
    CHECK(*result.summary.achieved_share > 0.94);
    CHECK(contains(result.no_verdict, "of the offered rate"));
  }
  SECTION("a latency as long as the slice may be all backlog") {
    for (int i = 0; i < 100; ++i) add(8'000'000, 8'000'000);
    summarise(cell, run.plan, run.placement, run.steal);
    CHECK(*result.summary.achieved_share < 0.6);
  }
}

TEST_CASE("the table says FAILED and why there are no ratios", "[summary]") {
  RunRecord run = sample_run();
  CHECK_FALSE(contains(terminal_table(run), "FAILED"));
  CHECK_FALSE(contains(terminal_table(run), "no ratios"));
  run.cells[0].results[1].error = "it died";
  CHECK(contains(terminal_table(run), "FAILED\n"));
  run.cells[0].results.erase(run.cells[0].results.begin());
  for (const std::string& text : {terminal_table(run), markdown_table(run)}) {
    CHECK(contains(text, "no ratios: the baseline epoll was not measured here"));
  }
  CHECK(cell_title({1, 64, kOpenLoopDepth, 0.5}) ==
        "1 connection, 64 B, open loop at 0.5 requests/s");
}
