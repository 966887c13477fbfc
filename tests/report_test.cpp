// The page report.html: what is in it for which run, and that nothing in a run can break it. How it
// looks and works in a browser is clients/report_test.mjs.
#include "harness/report.hpp"

#include <zlib.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>

#include "harness/report_data.hpp"
#include "harness/run_folder.hpp"
#include "tests/bench_program.hpp"
#include "tests/catch.hpp"
#include "tests/helpers.hpp"
#include "tests/sample_run.hpp"

using namespace echolab::harness;
using namespace std::chrono_literals;
using nlohmann::ordered_json;

namespace {

constexpr std::size_t kMostBytes = 400'000;  // of a page of the default matrix

Output report_program(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {program("harness"), "report"});
  return run_program(arguments, 60s);
}

std::string between(const std::string& text, const std::string& begin, const std::string& end) {
  const std::size_t from = text.find(begin);
  REQUIRE(from != std::string::npos);
  const std::size_t to = text.find(end, from + begin.size());
  REQUIRE(to != std::string::npos);
  return text.substr(from + begin.size(), to - from - begin.size());
}

// What the page's own reader does: base64, then zlib.
ordered_json data_in(const std::string& page) {
  const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  std::uint32_t bits = 0;
  unsigned have = 0;
  for (const char c : between(page, "id=\"data\">", "<")) {
    if (c == '=') break;
    REQUIRE(contains(digits, std::string(1, c)));
    bits = bits << 6 | static_cast<std::uint32_t>(digits.find(c));
    have += 6;
    if (have < 8) continue;
    have -= 8;
    bytes += static_cast<char>(bits >> have & 255);
  }
  std::string text(50'000'000, '\0');
  uLongf size = text.size();
  REQUIRE(uncompress(reinterpret_cast<Bytef*>(text.data()), &size,
                     reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()) == Z_OK);
  text.resize(size);
  return ordered_json::parse(text);
}

// The whole of a default run that went on to the most blocks, as noisy as the machine.
RunRecord largest_run() {
  constexpr std::uint32_t kBlocks = 24, kRounds = 13;
  RunRecord run = sample_run();
  run.cells.clear();
  run.plan.rates = {0};
  run.plan.shares.clear();
  run.plan.blocks = 8;
  run.plan.most_blocks = kBlocks;
  run.plan.contenders.clear();
  run.variants.clear();
  for (const char* name :
       {"threads", "epoll", "io_uring", "libuv", "epoll:lt", "libuv:inline", "io_uring:plain"}) {
    run.plan.contenders.push_back({name, ""});
  }
  run.plan.add_copy();
  for (const Contender& contender : run.plan.contenders) {
    run.variants.push_back({contender.name, "", "", {}});
  }
  run.plan.connections = {1, 64, 1000};
  run.plan.sizes = {64, 4096};
  run.plan.depths = {1, 16};
  std::mt19937_64 random(1);
  std::lognormal_distribution<> noise(0, 0.12), tail(0, 0.5);
  for (const CellShape& shape : run.plan.shapes()) {
    CellRecord cell{shape, {}};
    for (const Contender& contender : run.plan.contenders) {
      Result result = sample_result(contender.name, false, 4'000'000);
      const SliceRow like = result.slices.front();
      result.slices.clear();
      for (std::uint32_t i = 0; i < kBlocks * kRounds; ++i) {
        SliceRow row = like;
        row.block = i / kRounds;
        row.round = i % kRounds;
        row.requests =
            static_cast<std::uint64_t>(static_cast<double>(row.requests) * noise(random));
        row.server_cpu_ns =
            static_cast<std::uint64_t>(static_cast<double>(row.server_cpu_ns) * noise(random));
        row.p99_ns = static_cast<std::uint64_t>(static_cast<double>(row.p99_ns) * tail(random));
        result.slices.push_back(row);
        for (int k = 0; k < 40; ++k) {
          result.latency.record(static_cast<std::uint64_t>(4e5 * tail(random)), 100);
        }
      }
      cell.results.push_back(std::move(result));
    }
    summarise(cell, run.plan, run.placement, run.steal);
    run.cells.push_back(std::move(cell));
  }
  return run;
}

}  // namespace

TEST_CASE("a page holds the whole run and nothing from elsewhere", "[report]") {
  const std::string page = report_html(sample_run());
  CHECK(contains(page, "<h1>echolab run of 31 January 2025, 23:59 UTC</h1>"));
  CHECK(contains(page, "Example CPU, 2 CPUs online, under none; Linux 6.1.0"));
  CHECK(contains(page, "default-src 'none'"));
  CHECK(contains(page, "Permission is hereby granted"));  // uPlot's licence
  CHECK(count(page, "{{") == count(page, "{{}}"));
  CHECK(!contains(page, " src="));
  CHECK(!contains(page, "url("));
  CHECK(!contains(page, "@import"));
  const ordered_json data = data_in(page);
  CHECK(data == report_data(sample_run()));
  REQUIRE(data["cells"].size() == 2);
  CHECK(data["cells"][0]["title"] == "64 connections, 64 B, depth 1, closed loop");
  const ordered_json& other = data["cells"][0]["results"][1];
  CHECK(other["variant"] == "other");
  CHECK(other["figures"]["server_cpu_us_per_request"].get<double>() == Approx(1.998).epsilon(1e-3));
  CHECK(other["against"]["cpu"]["verdict"] == "slower");
  CHECK(other["against"]["cpu"]["to_best"] == other["against"]["cpu"]["ratio"]);
  CHECK(other["against"]["cpu"]["interval"].size() == 2);
  CHECK(contains(other["explanation"].get<std::string>(), "times the CPU"));
  CHECK(!other.contains("raw_curve"));
  CHECK(data["cells"][1]["results"][1]["raw_curve"].size() > 0);
}

TEST_CASE("the slices of a page are those of the run, the dropped ones too", "[report]") {
  const RunRecord run = sample_run();
  const std::vector<SliceRow>& rows = run.cells[0].results[0].slices;
  const ordered_json data = report_data(run);
  const ordered_json& slices = data["cells"][0]["results"][0]["slices"];
  CHECK(slices["gates"] == ordered_json::parse("[[0,2],[4,1],[0,5]]"));
  CHECK(slices["blocks"].size() == 8);
  const ordered_json& cpu = slices["cpu"];
  const auto steps = cpu["steps"].get<std::string>();
  const auto digits = data["digits"].get<std::string>();
  REQUIRE(steps.size() == 2 * rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto step =
        static_cast<double>(64 * digits.find(steps[2 * i]) + digits.find(steps[2 * i + 1])) - 2048;
    const double value =
        cpu["center"].get<double>() * std::exp(step / cpu["steps_per_e"].get<double>());
    const double exact =
        static_cast<double>(rows[i].server_cpu_ns) / 1e3 / static_cast<double>(rows[i].requests);
    CHECK(std::abs(value / exact - 1) < 0.0015);
  }
}

TEST_CASE("a curve ends with the last percentile that has samples enough", "[report]") {
  RunRecord run = sample_run();
  Histogram& latency = run.cells[0].results[0].latency;
  latency.clear();
  for (std::uint64_t i = 1; i <= 10'000; ++i) latency.record(i * 1000);
  const ordered_json curve = report_data(run)["cells"][0]["results"][0]["curve"];
  // 1 % of them are 100: two decades, both ends included.
  REQUIRE(curve.size() == 2 * kCurvePerDecade + 1);
  CHECK(curve.front() == 1.0);
  CHECK(curve[kCurvePerDecade].get<double>() == Approx(9000).epsilon(0.002));
  CHECK(curve.back().get<double>() == Approx(9900).epsilon(0.002));
}

TEST_CASE("a page has the seam's cost and the sweeps", "[report]") {
  RunRecord run = sample_run();
  run.cells[0].seams = {{"epoll", "raw-epoll", 8, 1.0312345, 1.01, 1.05, ""},
                        {"io_uring", "raw-io_uring", 0, {}, {}, {}, "it failed"}};
  run.sweeps = {{64, 64, 99, 1'000'000, {{"epoll", 60'000.0, {}, ""}, {"other", {}, 2e4, ""}}, {}}};
  const ordered_json data = report_data(run);
  CHECK(data["cells"][0]["seam"] == ordered_json::parse(R"([
      {"backend": "epoll", "control": "raw-epoll", "ratio": 1.03123, "interval": [1.01, 1.05]},
      {"backend": "io_uring", "control": "raw-io_uring", "why": "it failed"}])"));
  for (const auto& note : data["cells"][0]["notes"]) {
    CHECK_FALSE(contains(note.get<std::string>(), "seam"));  // it is no gate
  }
  REQUIRE(data["sweeps"].size() == 1);
  CHECK(data["sweeps"][0]["limit_us"] == 1000.0);
  CHECK(data["sweeps"][0]["highest_rate_per_s"] == ordered_json::parse(R"({"epoll": 60000.0})"));
  CHECK(data["sweeps"][0]["lines"].size() == 2);
}

TEST_CASE("what was not measured is absent from a page, never zero", "[report]") {
  RunRecord run = sample_run();
  Result& row = run.cells[0].results[1];
  row = Result{};
  row.variant = "other";
  row.error = "it died";
  summarise(run.cells[0], run.plan, run.placement, run.steal);
  const ordered_json data = report_data(run);
  const ordered_json& other = data["cells"][0]["results"][1];
  CHECK(other["error"] == "it died");
  CHECK(other["figures"].empty());
  CHECK(other["against"].empty());
  CHECK(other["curve"].empty());
  CHECK(other["slices"]["cpu"].is_null());
  CHECK(warnings(run).front() ==
        "other failed at 64 connections, 64 B, depth 1, closed loop: it died");
}

TEST_CASE("nothing that a run holds can leave its place in a page", "[report]") {
  RunRecord run = sample_run();
  const std::string nasty = "</script><script>alert(1)</script><!-- ' \" & {{data}} \xff \u65e5";
  for (CellRecord& cell : run.cells) {
    cell.results[1].variant = nasty;
    cell.results[1].error = nasty;
  }
  run.variants[1].name = run.plan.contenders[1].name = nasty;
  run.environment["machine"]["cpu_model"] = nasty;
  run.started = nasty;
  const std::string page = report_html(run);
  // The page's own: its data, uPlot and its code.
  CHECK(count(page, "<script") == 3);
  CHECK(count(page, "</script") == 3);
  CHECK(!contains(page, "alert(1)<"));
  CHECK(contains(page, "&lt;/script&gt;&lt;script&gt;alert(1)"));
  CHECK(contains(page, "{{data}}"));  // as it was written, in the text
  CHECK(data_in(page)["variants"][1]["name"].get<std::string>().find("</script>") == 0);
}

TEST_CASE("a page says what its run lacks", "[report]") {
  const auto says = [](const RunRecord& run, const std::string& part) {
    INFO(part);
    return contains(report_html(run), part);
  };
  RunRecord run = sample_run();
  CHECK(warnings(run).empty());
  run.partial = true;
  CHECK(says(run, "Partial run: it was interrupted."));
  run.plan.quick = true;
  for (CellRecord& cell : run.cells) summarise(cell, run.plan, run.placement, run.steal);
  CHECK(says(run, "Quick run: numbers, never a verdict."));
  CHECK_FALSE(report_data(run)["has_verdicts"].get<bool>());
  run.cells.clear();
  CHECK(says(run, "Empty run: nothing was measured."));
  const RunRecord old = read_run("results/reference-2026-11-25");
  CHECK(says(old, "No verdicts: this run has no blocks"));
  CHECK(report_html(old).size() < kMostBytes);
}

TEST_CASE("the page of the largest default run stays small", "[report]") {
  const std::string page = report_html(largest_run());
  INFO(page.size());
  CHECK(page.size() < kMostBytes);
}

TEST_CASE("harness report writes beside the run, or where it is told to", "[report]") {
  const TemporaryFolder folder;
  std::ofstream(folder.file("run.json")) << to_text(sample_run());
  const Output first = report_program({folder.path()});
  INFO(first.err);
  CHECK(first.exit_status == 0);
  CHECK(first.out == folder.file("report.html") + "\n" + folder.file("verdicts-light.svg") + "\n" +
                         folder.file("verdicts-dark.svg") + "\n");
  for (const char* name : {"verdicts-light.svg", "verdicts-dark.svg"}) {
    CHECK(slurp(folder.file(name)).find("<svg") == 0);
  }
  const bool same = slurp(folder.file("report.html")) == report_html(sample_run());
  CHECK(same);  // not worth printing
  CHECK(!std::filesystem::exists(folder.file("report.html.tmp")));
}

TEST_CASE("two pages in one folder have pictures of their own", "[report]") {
  const TemporaryFolder folder;
  RunRecord run = sample_run();
  std::ofstream(folder.file("run.json")) << to_text(run);
  run.started = "2026-02-03T04:05:06Z";
  std::ofstream(folder.file("later.json")) << to_text(run);
  for (const std::string name : {"run", "later"}) {
    const Output output =
        report_program({folder.file(name + ".json"), "-o", folder.file(name + ".of.html")});
    CHECK(output.out == folder.file(name + ".of.html") + "\n" +
                            folder.file(name + ".of-verdicts-light.svg") + "\n" +
                            folder.file(name + ".of-verdicts-dark.svg") + "\n");
  }
  CHECK(
      contains(slurp(folder.file("run.of-verdicts-dark.svg")), sample_run().started.substr(0, 10)));
  CHECK(contains(slurp(folder.file("later.of-verdicts-dark.svg")), "2026-02-03"));
}

TEST_CASE("the best of a cell is one that competes", "[report]") {
  RunRecord run = sample_run();
  Result& other = run.cells[0].results[1];
  const auto to_best = [&] {
    return report_data(run)["cells"][0]["results"][0]["against"]["cpu"]["to_best"].get<double>();
  };
  other.summary.ratio_cpu = 0.5;
  CHECK(to_best() == 2);
  SECTION("nobody without a verdict, where there are any") {
    other.verdicts.cpu->verdict = Verdict::none;
    CHECK(to_best() == 1);
    for (CellRecord& cell : run.cells) {
      for (Result& result : cell.results) result.verdicts = {};
    }
    CHECK(to_best() == 2);
  }
  SECTION("no control") {
    run.variants[1].name = other.variant = "raw-epoll";
    CHECK(to_best() == 2);  // a server of somebody who calls it so
    run.variants[1].command.clear();
    CHECK(to_best() == 1);
    CHECK(report_data(run)["variants"][1]["control"] == true);
  }
  SECTION("not the second copy") {
    run.cells[0].results[2].summary.ratio_cpu = 0.1;
    CHECK(to_best() == 2);
  }
  SECTION("not what failed its gates") {
    other.no_verdict = "too few slices";
    CHECK(to_best() == 1);
  }
  SECTION("not what broke") {
    other.error = "it died";
    CHECK(to_best() == 1);
  }
}

TEST_CASE("harness report refuses what is no run, and says what it cannot write", "[report]") {
  const TemporaryFolder folder;
  const auto fails = [&](const std::vector<std::string>& arguments, int status,
                         const std::string& part) {
    const Output output = report_program(arguments);
    INFO(output.err);
    CHECK(output.exit_status == status);
    CHECK(contains(output.err, part));
    CHECK(count(output.err, "\n") == 1);
    CHECK(output.out.empty());
  };
  fails({}, 2, "RUN");
  fails({folder.path()}, 2, "run.json: No such file or directory");
  std::ofstream(folder.file("broken.json")) << "{\"schema\": ";
  fails({folder.file("broken.json")}, 2, "was it cut off?");
  std::ofstream(folder.file("run.json")) << to_text(sample_run());
  fails({folder.path(), "-o", "/nonexistent/x.html"}, 1, "cannot write /nonexistent/x.html");
  fails({folder.path(), "-o", folder.path()}, 1, "cannot write " + folder.path());
}
