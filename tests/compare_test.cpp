// `harness compare` on stored runs: what it says, and how it exits. tests/data/run-a.json and
// run-b.json are made by hand: B comes from another machine, with 10 % more CPU in one row.
#include "harness/compare.hpp"

#include <cmath>
#include <fstream>

#include "harness/process.hpp"
#include "harness/run_folder.hpp"
#include "tests/catch.hpp"
#include "tests/compare_program.hpp"
#include "tests/helpers.hpp"
#include "tests/sample_run.hpp"

using namespace echolab::harness;
using namespace std::chrono_literals;

namespace {

const std::string kA = "tests/data/run-a.json";
const std::string kB = "tests/data/run-b.json";

}  // namespace

TEST_CASE("compare prints what is expected of two stored runs", "[compare]") {
  const Output output = compare_program({kA, kB, "--fail-on", "5%"});
  CHECK(output.out == slurp("tests/data/compare-a-b.txt"));
  CHECK(output.err.empty());
  CHECK(output.exit_status == 1);
}

TEST_CASE("compare exits by what it was asked to fail on", "[compare]") {
  CHECK(compare_program({kA, kB}).exit_status == 0);
  const TemporaryFolder folder;
  const auto stored = [&](const std::string& name, double cpu) {
    RunRecord run = sample_run();
    for (SliceRow& row : run.cells[0].results[1].slices) {
      row.server_cpu_ns =
          static_cast<std::uint64_t>(cpu * 1000 * static_cast<double>(row.requests));
    }
    std::ofstream(folder.file(name)) << to_text(run);
    return folder.file(name);
  };
  const std::string before = stored("before", 2.0);
  const std::string after = stored("after", 2.2);
  CHECK(compare_program({before, after, "--fail-on", "20%"}).exit_status == 0);
  CHECK(compare_program({before, after, "--fail-on", "9.5"}).exit_status == 1);
  CHECK(compare_program({after, before, "--fail-on", "5%"}).exit_status == 0);  // it got better
  CHECK(compare_program({kA, kA, "--fail-on", "0%"}).exit_status ==
        1);  // an early file has no blocks
  CHECK(compare_program({kA, kB, "--fail-on", "much"}).exit_status == 2);
  CHECK(compare_program({kA}).exit_status == 2);
}

TEST_CASE("compare writes JSON", "[compare]") {
  const Output output = compare_program({kA, kB, "--json", "--fail-on", "5%"});
  CHECK(output.exit_status == 1);
  const nlohmann::json document = nlohmann::json::parse(output.out);
  CHECK(document["schema"] == "echolab.compare");
  CHECK(document["version"] == 2);
  CHECK(document["regressed"] == false);  // of other machines nothing is said
  CHECK(document["other_machine"] == true);
  CHECK(document["cells"][0]["rows"][1]["variant"] == "other");
  CHECK(document["cells"][0]["rows"][1]["unfit"] == "another machine");
  const double ratio = document["cells"][0]["rows"][1]["server_cpu_us_per_request"]["ratio"];
  CHECK(std::abs(ratio - 1.1) < 0.01);
  CHECK(document["only_a"][0] == "c64/s64/r400000");
}

TEST_CASE("what cannot be read is one line that names the file, and exit 2", "[compare]") {
  const TemporaryFolder folder;
  const std::string whole = slurp(kA);
  const auto refused = [&](const std::string& text, const std::string& why) {
    std::ofstream(folder.file("run.json"), std::ios::trunc) << text;
    const Output output = compare_program({kA, folder.path()});
    INFO(output.err);
    CHECK(output.exit_status == 2);
    CHECK(output.out.empty());
    CHECK(contains(output.err, folder.file("run.json")));
    CHECK(contains(output.err, why));
    CHECK(output.err.find('\n') == output.err.size() - 1);
  };
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = whole;
    return text.replace(text.find(from), from.size(), to);
  };
  refused("", "not JSON");
  refused(whole.substr(0, whole.size() / 2), "cut off");
  refused("[1, 2, 3]", "expected an object");
  refused(with("\"version\": 1", "\"version\": 9"), "newer");
  refused(with("echolab.run", "echolab.other"), "echolab.other");
  refused(with("\"slice_ns\"", "\"slice\""), "plan.slice_ns: missing");
  refused(with("\"partial\": false", "\"partial\": 0"), "true or false");
  refused(with("\"measured_s\": 0.05", "\"measured_s\": NaN"), "cannot stand there");
  refused(with("\"measured_s\": 0.05", "\"measured_s\": \"0.05\""),
          "measured_s: expected a number");
  refused(with("\"measured_s\": 0.05", "\"measured_s\": -1"), "measured_s: expected a number, not");
  refused(with("\"measured_s\": 0.05", "\"measured_s\": 1e999"), "too large");
  const Output absent = compare_program({folder.file("absent"), kA});
  CHECK(absent.exit_status == 2);
  CHECK(contains(absent.err, folder.file("absent")));
}

TEST_CASE("a run compared with itself differs in nothing", "[compare]") {
  const RunRecord run = read_run(kA);
  const Comparison comparison = compare(run, run, 0.0);
  CHECK(comparison.differences.empty());
  CHECK(comparison.only_a.empty());
  CHECK(comparison.only_b.empty());
  CHECK_FALSE(comparison.regressed());
}

TEST_CASE("differences come by weight, the machine's first", "[compare]") {
  const Comparison comparison = compare(read_run(kA), read_run(kB), std::nullopt);
  REQUIRE(comparison.differences.size() > 3);
  CHECK(comparison.other_machine);
  CHECK(comparison.differences.front().field.find("/machine/") == 0);
  bool notes = false;
  for (const Difference& d : comparison.differences) {
    CHECK_FALSE((d.doubtful && notes));
    notes = notes || !d.doubtful;
  }
  const Difference* mitigation = find(comparison, "/kernel/vulnerabilities/spectre_v2");
  REQUIRE(mitigation != nullptr);
  CHECK(mitigation->a == "Mitigation: A");
  CHECK(mitigation->b == "Vulnerable");
}

TEST_CASE("circumstances of the runs themselves are compared", "[compare]") {
  const RunRecord a = sample_run();
  RunRecord b = sample_run();
  b.plan.threads = 2;
  b.plan.quick = true;
  b.steal.median_share = 0.3;
  b.variants[1].command = "another {port}";
  const Comparison comparison = compare(a, b, std::nullopt);
  CHECK_FALSE(comparison.other_machine);
  for (const char* field : {"plan: threads", "plan: quick", "steal", "other: command"}) {
    INFO(field);
    const Difference* difference = find(comparison, field);
    REQUIRE(difference != nullptr);
    CHECK(difference->doubtful);
  }
}

TEST_CASE("another congestion control makes a comparison doubtful, other sysctls do not",
          "[compare]") {
  RunRecord a = sample_run();
  RunRecord b = sample_run();
  a.environment["kernel"]["sysctls"] = {{"net.ipv4.tcp_congestion_control", "bbr"},
                                        {"net.core.somaxconn", "128"}};
  b.environment["kernel"]["sysctls"] = {{"net.ipv4.tcp_congestion_control", "cubic"},
                                        {"net.core.somaxconn", "4096"}};
  const Comparison comparison = compare(a, b, std::nullopt);
  REQUIRE(comparison.differences.size() == 2);
  CHECK(comparison.differences[0].field == "/kernel/sysctls/net.ipv4.tcp_congestion_control");
  CHECK(comparison.differences[0].a == "bbr");
  CHECK(comparison.differences[0].b == "cubic");
  CHECK(comparison.differences[0].doubtful);
  CHECK(comparison.differences[1].field == "/kernel/sysctls/net.core.somaxconn");
  CHECK_FALSE(comparison.differences[1].doubtful);
}

TEST_CASE("rows that failed or have no verdict are not judged", "[compare]") {
  const RunRecord a = sample_run();
  RunRecord b = sample_run();
  Result& row = b.cells[0].results[1];
  row.summary.server_cpu_us_per_request = 100;
  SECTION("no verdict") {
    row.no_verdict = "too noisy";
    const Comparison comparison = compare(a, b, 0.05);
    CHECK(contains(comparison.cells[0].rows[1].unfit, "too noisy"));
    CHECK_FALSE(comparison.regressed());
  }
  SECTION("failed in B: that is a regression") {
    row.error = "died";
    const Comparison comparison = compare(a, b, 0.05);
    CHECK(comparison.regressed());
    CHECK(comparison.failed_in_b == std::vector<std::string>{"other/c64/s64/d1"});
  }
  SECTION("absent figures have no ratio") {
    row.summary = Summary{};
    const Comparison comparison = compare(a, b, 0.05);
    CHECK_FALSE(comparison.cells[0].rows[1].requests_per_s.ratio());
    CHECK(comparison.cells[0].rows[1].unfit == "not measured in B");
    CHECK_FALSE(comparison.regressed());
  }
}

TEST_CASE("what was not compared has not passed", "[compare]") {
  const TemporaryFolder folder;
  const RunRecord a = sample_run();
  RunRecord b = sample_run();
  const auto fails = [&](const std::string& why) {
    const std::string in_a = folder.file("a.json");
    const std::string in_b = folder.file("b.json");
    std::ofstream(in_a, std::ios::trunc) << to_text(a);
    std::ofstream(in_b, std::ios::trunc) << to_text(b);
    const Output output = compare_program({in_a, in_b, "--fail-on", "5%"});
    INFO(output.out);
    CHECK(output.exit_status == 1);
    CHECK(contains(output.out, "INCOMPLETE: " + why));
    CHECK(contains(output.out, "No regression"));
    const Output shown = compare_program({in_a, in_b});
    CHECK(shown.exit_status == 0);
    const bool any = compare(a, b, std::nullopt).rows() > 0;
    CHECK(contains(shown.out, "Nothing to compare") != any);
  };
  SECTION("B has no cells") {
    b.cells.clear();
    fails("nothing was compared");
  }
  SECTION("no cell in common") {
    for (CellRecord& cell : b.cells) cell.shape.connections = 1;
    fails("nothing was compared");
  }
  SECTION("B lacks a row") {
    b.cells[0].results.erase(b.cells[0].results.begin() + 1);
    fails("B lacks other/c64/s64/d1");
  }
  SECTION("B lacks a cell") {
    b.cells.pop_back();
    fails("B lacks c64/s64/r400000");
  }
  SECTION("no row is fit") {
    for (CellRecord& cell : b.cells) {
      for (Result& result : cell.results) result.no_verdict = "too noisy";
    }
    fails("nothing was compared");
  }
  SECTION("B was interrupted") {
    b.partial = true;
    fails("an interrupted run");
  }
}

TEST_CASE("features of a backend that never started are not compared", "[compare]") {
  const RunRecord a = sample_run();
  RunRecord b = sample_run();
  b.variants[0].features = {{"ring", true, true, ""}};
  CHECK(find(compare(a, b, std::nullopt), "epoll: granted") != nullptr);
  for (CellRecord& cell : b.cells) cell.results.erase(cell.results.begin());
  b.variants[0].features.clear();
  CHECK(find(compare(a, b, std::nullopt), "epoll: granted") == nullptr);
}

namespace {

// Another day's run, in which a row takes so many times the CPU and the time.
RunRecord changed(double cpu, double time, std::size_t row = 1) {
  RunRecord run = sample_run();
  for (SliceRow& slice : run.cells[0].results[row].slices) {
    const auto times = [](std::uint64_t& value, double factor) {
      value = static_cast<std::uint64_t>(static_cast<double>(value) * factor);
    };
    times(slice.server_cpu_ns, cpu);
    times(slice.elapsed_ns, time);
  }
  return run;
}

Verdict cpu_verdict(const RunRecord& a, const RunRecord& b) {
  const std::optional<Judgement> one = compare(a, b, std::nullopt).cells[0].rows[1].verdicts.cpu;
  REQUIRE(one);
  return one->verdict;
}

}  // namespace

TEST_CASE("less throughput is a regression", "[compare]") {
  const RunRecord a = sample_run(), b = changed(1, 1 / 0.9);
  CHECK(compare(a, b, 0.05).regressed());
  CHECK_FALSE(compare(a, b, 0.15).regressed());
  CHECK_FALSE(compare(a, b, std::nullopt).regressed());
}

TEST_CASE("verdicts across two runs", "[compare]") {
  const RunRecord a = sample_run();
  CHECK(cpu_verdict(a, changed(1.05, 1)) == Verdict::slower);
  CHECK(cpu_verdict(a, changed(0.9, 1)) == Verdict::faster);
  CHECK(cpu_verdict(a, changed(1.01, 1)) == Verdict::equivalent);
  CHECK(compare(a, changed(1.05, 1), 0.03).regressed());
  CHECK_FALSE(compare(a, changed(1.015, 1), 0.01).regressed());  // below delta
}

TEST_CASE("what changed between two runs is told beside the verdicts", "[compare]") {
  const RunRecord a = sample_run();
  RunRecord b = changed(0.5, 1, 0);
  b.cells[0].results[0].summary.syscalls_per_request = 1.1;
  for (SliceRow& slice : b.cells[0].results[2].slices) slice.server_cpu_ns /= 2;  // its copy, too
  const Comparison comparison = compare(a, b, std::nullopt);
  const ComparedRow& row = comparison.cells[0].rows[0];
  CHECK(row.explanation ==
        "0.500 times the CPU (-0.500 us); 1.10 system calls per request against 2.00");
  CHECK(contains(to_text(comparison, "A", "B", std::nullopt), "\n  0.500 times the CPU"));
  CHECK(to_json(comparison, "A", "B", std::nullopt)["cells"][0]["rows"][0]["explanation"] ==
        row.explanation);
  CHECK(compare(a, a, std::nullopt).cells[0].rows[0].explanation ==
        "equal CPU; no counter differs much");
}

TEST_CASE("across runs, too, noise is no verdict", "[compare]") {
  const RunRecord a = sample_run();
  SECTION("two copies that differ") {
    RunRecord b = changed(1.5, 1);
    for (SliceRow& slice : b.cells[0].results[2].slices) slice.server_cpu_ns *= 2;
    const Comparison comparison = compare(a, b, 0.05);
    CHECK(comparison.cells[0].rows[1].verdicts.cpu->why == "too noisy: A/A differs");
    CHECK(comparison.cells[0].rows[1].worse.empty());
  }
  SECTION("no second copy") {
    RunRecord b = changed(1.5, 1);
    b.cells[0].results.pop_back();
    CHECK(compare(a, b, 0.05).cells[0].rows[1].verdicts.cpu->why == "no A/A in B");
  }
  SECTION("a version without blocks") {
    RunRecord b = changed(1.5, 1);
    b.version = 1;
    b.plan.blocks = 1;
    const Comparison comparison = compare(a, b, 0.05);
    CHECK(comparison.cells[0].rows[1].unfit == "B is of schema version 1, which has no blocks");
    CHECK_FALSE(comparison.regressed());
    // Said once, and nothing about blocks that one of them cannot have.
    const std::string text = to_text(comparison, "A", "B", 0.05);
    CHECK(text.find("version 1") == text.rfind("version 1"));
    CHECK(contains(text, "B is of schema version 1, which has no blocks: it has numbers, never"));
    CHECK(find(comparison, "plan: blocks") == nullptr);
  }
  SECTION("one start of the servers") {
    RunRecord b = changed(1.5, 1);
    b.plan.blocks = 1;
    const Comparison comparison = compare(a, b, 0.05);
    CHECK(comparison.cells[0].rows[1].unfit == "B started its servers once");
    CHECK_FALSE(comparison.regressed());
    CHECK_FALSE(comparison.gaps().empty());
    CHECK(comparison.remarks ==
          std::vector<std::string>{"B started its servers once: it has numbers, never a verdict"});
  }
}

TEST_CASE("across runs, too, p99 is judged by whole blocks", "[compare]") {
  RunRecord a = sample_run(), b = sample_run();
  const auto p99 = [&] {
    return compare(a, b, 0.05).cells[0].rows[1].verdicts.p99.value_or(Judgement{});
  };
  for (RunRecord* run : {&a, &b}) few_samples(run->cells[0]);
  CHECK(p99().why == "too few samples for p99: 1000 of 2000 in a block");
  CHECK(p99().ratio == 1);
  for (RunRecord* run : {&a, &b}) {
    for (Result& result : run->cells[0].results) {
      for (BlockRow& block : result.blocks) block.p99_ns = 50'000 + block.block;
    }
  }
  for (BlockRow& block : b.cells[0].results[1].blocks) *block.p99_ns += 10'000;
  CHECK(p99().verdict == Verdict::slower);
  a.cells[0].results[1].blocks.clear();
  CHECK(p99().why == "no p99 of single blocks: measured by an early echolab");
}

TEST_CASE("compare writes Markdown", "[compare]") {
  const std::string text =
      to_markdown(compare(sample_run(), changed(1.05, 1), 0.03), "A", "B", 0.03);
  CHECK(contains(text, "| other | 2.00 | 2.00 | 1.050 [1.04"));
  CHECK(contains(text, "| slower |"));
  CHECK(contains(text, "| 5.0 % more CPU (+0.100 us); no figure known of both accounts for it |"));
  CHECK(contains(text, "REGRESSION beyond 3 %"));
}
