// The raw controls in a run, and what the seam costs.
#include "harness/seam.hpp"

#include "harness/controls.hpp"
#include "harness/run_folder.hpp"
#include "harness/table.hpp"
#include "tests/bench_program.hpp"
#include "tests/catch.hpp"
#include "tests/helpers.hpp"
#include "tests/sample_run.hpp"

using namespace echolab::harness;

namespace {

// epoll at 1.25 times the CPU of its control, in eight blocks of one slice.
RunRecord run_with_control() {
  RunRecord run = sample_run();
  run.plan.contenders = {{"epoll", ""}, {"raw-epoll", ""}};
  run.cells.resize(1);
  CellRecord& cell = run.cells[0];
  cell.results = {sample_result("epoll", false, 5'000'000),
                  sample_result("raw-epoll", false, 4'000'000)};
  summarise(cell, run.plan, run.placement, run.steal);
  return run;
}

}  // namespace

TEST_CASE("a backend beside its control says what the seam costs", "[seam]") {
  const RunRecord run = run_with_control();
  REQUIRE(run.cells[0].seams.size() == 1);
  const Seam& seam = run.cells[0].seams[0];
  CHECK(seam.backend == "epoll");
  CHECK(seam.control == "raw-epoll");
  CHECK(seam.blocks == 7);  // one slice was dropped
  CHECK(seam.ratio.value() == Approx(1.25).epsilon(1e-5));
  CHECK(seam.low.value() <= seam.ratio.value());
  CHECK(seam.high.value() >= seam.ratio.value());
  const std::string line = "seam: epoll costs 1.25x [1.25, 1.25] of raw-epoll's CPU per request";
  CHECK(seam_line(run.cells[0]) == line);
  CHECK(contains(terminal_table(run), line));
  CHECK(contains(markdown_table(run), line));
  const RunRecord again = run_from_json(nlohmann::json::parse(to_text(run)));
  CHECK(to_text(again) == to_text(run));
  CHECK(seam_line(again.cells[0]) == line);
}

TEST_CASE("a seam's cost that is not known is a gap with its reason", "[seam]") {
  RunRecord run = run_with_control();
  CellRecord& cell = run.cells[0];
  cell.results[1].error = "raw-epoll: it died";
  summarise(cell, run.plan, run.placement, run.steal);
  REQUIRE(cell.seams.size() == 1);
  CHECK_FALSE(cell.seams[0].ratio.has_value());
  CHECK(contains(seam_line(cell), "is not known: raw-epoll failed"));
  cell.results.erase(cell.results.begin());  // no backend: nothing to say
  summarise(cell, run.plan, run.placement, run.steal);
  CHECK(seam_line(cell).empty());
}

TEST_CASE("a control is no rival: it takes nothing from the verdicts of others", "[seam]") {
  RunRecord run = run_with_control();
  CellRecord& cell = run.cells[0];
  run.plan.contenders.push_back({"other", ""});
  run.plan.add_copy();
  cell.results.push_back(sample_result("other", false, 8'000'000));
  cell.results.push_back(sample_result("epoll (A/A)", false, 5'001'000));
  summarise(cell, run.plan, run.placement, run.steal);
  CHECK(cell.results[1].verdicts.cpu.value().verdict == Verdict::none);
  CHECK(contains(cell.results[1].verdicts.cpu->why, "control"));
  const Judgement& other = cell.results[2].verdicts.cpu.value();
  CHECK(other.verdict == Verdict::slower);
  CHECK(other.p_holm == Approx(other.p));  // the only comparison
}

TEST_CASE("controls are listed with their reasons", "[seam][list]") {
  const Output output =
      run_program({program("harness"), "list", "--json"}, std::chrono::seconds(20));
  REQUIRE(output.exit_status == 0);
  const nlohmann::json list = nlohmann::json::parse(output.out);
  for (const Control& control : controls()) {
    std::size_t found = 0;
    for (const nlohmann::json& variant : list["variants"]) {
      if (variant["name"] == control.name && variant["why"] == control.why) ++found;
    }
    CHECK(found == 1);
  }
}

TEST_CASE("a control runs by its name alone, and is recorded as ours", "[seam][bench]") {
  const TemporaryFolder folder;
  const Output output = bench(small(folder.file("run"), {"--backends", "epoll,raw-epoll"}));
  INFO(output.err);
  CHECK(output.exit_status == 0);
  const RunRecord run = read_run(folder.file("run"));
  REQUIRE(run.cells.size() == 1);
  REQUIRE(run.cells[0].results.size() == 2);
  const Result& control = run.cells[0].results[1];
  CHECK(control.variant == "raw-epoll");
  CHECK(control.error.empty());
  CHECK(control.window.requests > 0);
  CHECK_FALSE(control.window.counters.has_value());
  CHECK(run.variants.at(1).command.empty());
  CHECK(run.cells[0].seams.size() == 1);
  CHECK(contains(output.out, "seam: "));
}

TEST_CASE("the trivial responder is calibrated once where it is a contender too", "[bench]") {
  const TemporaryFolder folder;
  const Output output =
      bench(small(folder.file("run"), {"--backends", "epoll,raw-epoll", "--rates", "25%"}));
  INFO(output.err);
  REQUIRE(output.exit_status == 0);
  const std::vector<Peak> peaks = read_run(folder.file("run")).plan.peaks;
  REQUIRE(peaks.size() == 3);
  CHECK(peaks[1].variant == "raw-epoll");
  CHECK(peaks[2].variant == kGenerator);
  CHECK(peaks[2].rate == peaks[1].rate);  // two measurements never agree that well
}
