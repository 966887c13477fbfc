// Verdicts about the rows of a cell, and what other tools are given.
#include "harness/verdicts.hpp"

#include <cmath>
#include <fstream>
#include <set>

#include "harness/gbench.hpp"
#include "harness/process.hpp"
#include "harness/run_folder.hpp"
#include "harness/summary.hpp"
#include "harness/trial.hpp"
#include "tests/bench_program.hpp"
#include "tests/catch.hpp"
#include "tests/helpers.hpp"
#include "tests/sample_run.hpp"

using namespace echolab::harness;

namespace {

// The first cell of the sample, in which a row's CPU is multiplied block by block.
CellRecord cell_with(std::size_t row, double factor, double spread = 0) {
  RunRecord run = sample_run();
  double sign = 1;
  for (SliceRow& slice : run.cells[0].results[row].slices) {
    slice.server_cpu_ns = static_cast<std::uint64_t>(static_cast<double>(slice.server_cpu_ns) *
                                                     factor * std::exp(sign * spread));
    sign = -sign;
  }
  judge_cell(run.cells[0], run.plan);
  return run.cells[0];
}

Judgement cpu(const CellRecord& cell, std::size_t row = 1) {
  REQUIRE(cell.results[row].verdicts.cpu);
  return *cell.results[row].verdicts.cpu;
}

}  // namespace

TEST_CASE("a row is judged against the baseline", "[verdicts]") {
  CHECK(cpu(cell_with(1, 1)).verdict == Verdict::slower);  // twice as much
  CHECK(cpu(cell_with(1, 1)).blocks == 7);                 // one was stolen
  CHECK(cpu(cell_with(1, 0.5)).verdict == Verdict::equivalent);
  CHECK(cpu(cell_with(1, 0.4)).verdict == Verdict::faster);
  const Judgement unsure = cpu(cell_with(1, 0.5, 0.05));
  CHECK(unsure.verdict == Verdict::none);
  CHECK(contains(unsure.why, "could have seen 7."));
}

TEST_CASE("what two copies of the baseline show is noise", "[verdicts]") {
  SECTION("scattered copies widen delta") {
    const Judgement wide = cpu(cell_with(2, 1, 0.05));
    CHECK(std::abs(wide.delta - std::expm1(0.05)) < 0.001);
    CHECK(wide.verdict == Verdict::slower);  // twice as much is beyond it
  }
  SECTION("copies that differ spoil the cell") {
    const Judgement spoilt = cpu(cell_with(2, 1.1));
    CHECK(spoilt.verdict == Verdict::none);
    CHECK(contains(spoilt.why, "too noisy: A/A differs by 10.0 %; could have seen"));
  }
  SECTION("the copy itself has no verdict") {
    CHECK(cpu(cell_with(2, 2), 2).verdict == Verdict::none);
  }
}

TEST_CASE("a row that failed its gates, or a quick run, has no verdict", "[verdicts]") {
  RunRecord run = sample_run();
  CellRecord& cell = run.cells[0];
  SECTION("the row's own gates") {
    cell.results[1].no_verdict = "busy";
    judge_cell(cell, run.plan);
    CHECK(cpu(cell).why == "gates failed");
  }
  SECTION("the baseline's gates") {
    cell.results[0].no_verdict = "busy";
    judge_cell(cell, run.plan);
    CHECK(contains(cpu(cell).why, "the baseline: gates failed"));
  }
  SECTION("no second copy") {
    cell.results.pop_back();
    judge_cell(cell, run.plan);
    CHECK(contains(cpu(cell).why, "no A/A"));
  }
  SECTION("quick") {
    run.plan.quick = true;
    judge_cell(cell, run.plan);
    CHECK_FALSE(cell.results[1].verdicts.cpu);
  }
  CHECK(cell.results[1].verdicts.cpu.value_or(Judgement{}).verdict == Verdict::none);
}

TEST_CASE("open loops have no verdict on throughput", "[verdicts]") {
  const RunRecord run = sample_run();
  CHECK(run.cells[0].results[1].verdicts.throughput);
  CHECK_FALSE(run.cells[1].results[1].verdicts.throughput);
}

TEST_CASE("p99 is judged by whole blocks, if they have 20 samples beyond it", "[verdicts]") {
  RunRecord run = sample_run();
  CellRecord& cell = run.cells[0];
  const auto judged = [&] {
    summarise(cell, run.plan, run.placement, run.steal);
    return cell.results[1].verdicts.p99.value_or(Judgement{});
  };
  const auto fill = [&](std::size_t row, std::uint64_t p99_ns) {
    for (BlockRow& block : cell.results[row].blocks) block.p99_ns = p99_ns + block.block;
  };
  SECTION("as they are measured") {
    CHECK(judged().blocks == 7);
    CHECK(judged().low);
  }
  few_samples(cell);
  SECTION("too few") {
    const Judgement few = judged();
    CHECK(few.verdict == Verdict::none);
    CHECK(few.why == "too few samples for p99: 1000 of 2000 in a block");
    CHECK(few.ratio == *cell.results[1].summary.ratio_p99);
    CHECK_FALSE(few.low);
  }
  SECTION("enough, whatever the slices' own say") {
    fill(0, 50'000);
    fill(1, 60'000);
    fill(2, 50'010);
    for (SliceRow& slice : cell.results[1].slices) slice.p99_ns = 1;
    const Judgement enough = judged();
    CHECK(enough.verdict == Verdict::slower);
    CHECK(enough.blocks == 7);
    CHECK(std::abs(enough.ratio - 1.2) < 0.001);
    CHECK(*cell.results[1].summary.ratio_p99 == enough.ratio);
  }
  SECTION("not in the second copy") {
    fill(0, 50'000);
    fill(1, 60'000);
    CHECK(contains(judged().why, "A/A: too few samples for p99: 1000 of 2000 in a block"));
  }
  SECTION("in so few blocks that there is no interval") {
    fill(0, 50'000);
    fill(1, 60'000);
    fill(2, 50'000);
    for (std::size_t i = 0; i < 3; ++i) cell.results[1].blocks[i].p99_ns.reset();
    CHECK(judged().why == "too few samples for p99: 1000 of 2000 in a block");
    CHECK(judged().blocks == 4);
  }
  SECTION("a file from when 100 samples were needed") {
    for (BlockRow& block : cell.results[1].blocks) block.samples = 5000;
    CHECK(judged().why == "no p99 of single blocks: measured by an early echolab");
  }
  SECTION("a file from before") {
    cell.results[1].blocks.clear();
    CHECK(judged().why == "no p99 of single blocks: measured by an early echolab");
  }
}

TEST_CASE("latency is not compared between different loads", "[verdicts]") {
  RunRecord run = sample_run();
  CellRecord& cell = run.cells[0];
  const auto why = [&](double in_flight) {
    for (SliceRow& slice : cell.results[1].slices) slice.inflight_mean = in_flight;
    for (Result& result : cell.results) {
      for (BlockRow& block : result.blocks) block.p99_ns = 1000 + block.block;
    }
    summarise(cell, run.plan, run.placement, run.steal);
    return cell.results[1].verdicts.p99.value_or(Judgement{}).why;
  };
  CHECK(why(1.04).empty());
  CHECK(contains(why(0.5), "not the same load: 0.5 requests in flight against 1;"));
  CHECK(contains(why(1.1), "not the same load"));
  CHECK(cell.results[1].verdicts.cpu->why.empty());
}

TEST_CASE("a cell is precise when its intervals are narrow", "[verdicts]") {
  CHECK(precise(cell_with(1, 0.5, 0.005)));
  CHECK_FALSE(precise(cell_with(1, 0.5, 0.02)));
  CHECK_FALSE(precise(cell_with(2, 1, 0.02)));  // the second copy's counts like any other
}

TEST_CASE("blocks of a row are added", "[verdicts]") {
  Result sum = sample_result("epoll", false, 4'000'000);
  const Result block = sample_result("epoll", false, 4'000'000);
  const std::uint64_t count = sum.latency.count();
  add_block(sum, block);
  CHECK(sum.latency.count() == 2 * count);
  CHECK(sum.slices.size() == 16);
  CHECK(sum.blocks.size() == 14);
  CHECK(sum.window.requests == 2 * block.window.requests);
  CHECK(sum.window.counters->at("events") == 2 * block.window.counters->at("events"));
  CHECK(sum.window.batches->back() == 74);
  CHECK(sum.window.rss_connected_bytes == block.window.rss_connected_bytes);
}

TEST_CASE("blocks start every server anew, and the baseline twice", "[bench]") {
  const TemporaryFolder folder;
  const Output output = bench(small(
      folder.file("run"), {"--backends", "epoll,epoll:lt", "--export", "gbench", "--blocks", "7"}));
  INFO(output.err);
  REQUIRE(output.exit_status == 0);
  const RunRecord run = read_run(folder.file("run"));
  REQUIRE(run.cells.at(0).results.size() == 3);
  CHECK(run.cells[0].results[2].variant == "epoll (A/A)");
  for (const Result& result : run.cells[0].results) {
    CHECK(result.slices.back().block == 6);
    std::set<std::uint32_t> kept;  // blocks; on a busy machine all slices of one may be dropped
    for (const SliceRow& slice : result.slices) {
      if (slice.gate == Gate::kept) kept.insert(slice.block);
    }
    CHECK(result.blocks.size() == kept.size());
    CHECK(result.error.empty());
  }
  CHECK(run.variants.at(2).features.size() == run.variants.at(0).features.size());
  CHECK(std::filesystem::exists(folder.file("run/gbench.json")));
}

TEST_CASE("echo-server --spin costs what it says", "[bench]") {
  const TemporaryFolder folder;
  const Output output = bench(small(
      folder.file("run"), {"--backends", "epoll", "--server", foreign("spun") + " --spin 200us"}));
  INFO(output.err);
  REQUIRE(output.exit_status == 0);  // its replies are right
  const RunRecord run = read_run(folder.file("run"));
  const auto cpu_ns = [&](std::size_t row) {
    const Window& window = run.cells.at(0).results.at(row).window;
    return static_cast<double>(window.cpu_ns) / static_cast<double>(window.requests);
  };
  CHECK(cpu_ns(1) - cpu_ns(0) > 100'000);  // half of it, for clocks that change their frequency
}

TEST_CASE("rates as shares are calibrated first, the same for all", "[bench]") {
  const TemporaryFolder folder;
  const Output output =
      bench(small(folder.file("run"), {"--backends", "epoll,epoll:lt", "--rates", "25%,50%"}));
  INFO(output.err);
  REQUIRE(output.exit_status == 0);
  CHECK(contains(output.err, "c2/s64: the lowest closed-loop peak is "));
  const RunRecord run = read_run(folder.file("run"));
  REQUIRE(run.cells.size() == 2);
  REQUIRE(run.plan.peaks.size() >= 2);
  const double lowest = *Plan::lowest_peak(run.plan.peaks, 2, 64);
  CHECK(std::abs(run.cells[0].shape.rate - std::max(0.25 * lowest, 2500.0)) < 2);
  CHECK(run.cells[1].results.size() == 2);
}

TEST_CASE("a run as Google Benchmark writes it", "[gbench]") {
  const nlohmann::ordered_json document = to_gbench(sample_run());
  CHECK(document["context"]["num_cpus"] == 2);
  const auto& benchmarks = document["benchmarks"];
  REQUIRE(benchmarks.size() == 4 * 7);  // two rows in two cells, seven blocks; no second copy
  CHECK(benchmarks[7]["name"] == "other/c64/s64/d1");
  CHECK(benchmarks[7]["run_type"] == "iteration");
  CHECK(benchmarks[8]["repetition_index"] == 1);
  CHECK(benchmarks[7]["repetitions"] == 7);
  CHECK(benchmarks[7]["time_unit"] == "ns");
  CHECK(benchmarks[7]["cpu_time"] == 2000.0);
  CHECK(benchmarks[7]["real_time"] == 2500.0);
  CHECK(benchmarks[7]["items_per_second"] == 400000.0);
}

TEST_CASE("rows that failed their gates are errors to Google Benchmark", "[gbench]") {
  RunRecord run = sample_run();
  run.cells[0].results[1].no_verdict = "busy CPU";
  const nlohmann::ordered_json document = to_gbench(run);
  for (const auto& entry : document["benchmarks"]) {
    const bool unfit = entry["name"] == "other/c64/s64/d1";
    CHECK(entry.contains("error_occurred") == unfit);
    if (unfit) CHECK(entry["error_message"] == "busy CPU");
  }
  CHECK(document["benchmarks"].size() == 4 * 7);
}

// What Google's compare.py is tested with (gbench_test.py). B: 10 % more CPU in one row.
TEST_CASE("stored exports are what is written today", "[gbench]") {
  RunRecord run = sample_run();
  CHECK(slurp("tests/data/gbench-a.json") == to_gbench(run).dump(1) + "\n");
  for (SliceRow& slice : run.cells[0].results[1].slices)
    slice.server_cpu_ns += slice.server_cpu_ns / 10;
  CHECK(slurp("tests/data/gbench-b.json") == to_gbench(run).dump(1) + "\n");
}
