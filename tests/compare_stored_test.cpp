// `harness compare` on the stored runs of tests/data/compare, in its three forms, and the label of
// every circumstance that differs. before.json and after.json are two days of one machine: in
// after.json threads take 10 % more CPU and have a p99 that is 25 % longer, io_uring 10 % and 20 %
// less, libuv scatters, and one server died. A block has 10 000 requests.
//
// The expected texts are what the program prints; after a change on purpose, write them again:
//   harness compare tests/data/compare/before.json tests/data/compare/after.json --fail-on 5%
#include <fmt/format.h>

#include <cstdlib>
#include <map>
#include <set>

#include "harness/compare.hpp"
#include "harness/environment.hpp"
#include "harness/process.hpp"
#include "harness/run_folder.hpp"
#include "tests/catch.hpp"
#include "tests/compare_program.hpp"
#include "tests/helpers.hpp"
#include "tests/sample_run.hpp"

using namespace echolab::harness;
using nlohmann::json;
using namespace std::chrono_literals;

namespace {

const std::string kFolder = "tests/data/compare/";
const std::string kBefore = kFolder + "before.json";

// Every value of the record that has no members, by its pointer.
void leaves(const json& value, const json::json_pointer& at, std::set<std::string>& out) {
  if (!value.is_object()) {
    out.insert(at.to_string());
    return;
  }
  for (const auto& item : value.items()) leaves(item.value(), at / item.key(), out);
}

}  // namespace

TEST_CASE("compare prints what is expected of stored runs", "[compare]") {
  struct Case {
    std::string expected;
    std::vector<std::string> arguments;
    int exit_status;
  };
  const std::string after = kFolder + "after.json";
  const Case cases[] = {{"before-after.txt", {kBefore, after, "--fail-on", "5%"}, 1},
                        {"before-after.md", {kBefore, after, "--fail-on", "5%", "--markdown"}, 1},
                        {"before-after.json", {kBefore, after, "--fail-on", "5%", "--json"}, 1},
                        {"version-1.txt", {"tests/data/run-a.json", kBefore}, 0},
                        {"gaps.txt", {kBefore, kFolder + "gaps.json", "--fail-on", "5%"}, 1},
                        {"gaps.md", {kBefore, kFolder + "gaps.json", "--markdown"}, 0},
                        {"quick.txt", {kBefore, kFolder + "quick.json"}, 0},
                        {"empty.txt", {kBefore, kFolder + "empty.json", "--fail-on", "5%"}, 1}};
  for (const Case& one : cases) {
    INFO(one.expected);
    const Output output = compare_program(one.arguments);
    CHECK(output.out == slurp(kFolder + one.expected));
    CHECK(output.err.empty());
    CHECK(output.exit_status == one.exit_status);
  }
}

TEST_CASE("a run of a version to come is refused by name, whatever else is in it", "[compare]") {
  const Output output = compare_program({kBefore, kFolder + "newer.json"});
  CHECK(output.exit_status == 2);
  CHECK(output.out.empty());
  CHECK(output.err ==
        "harness: tests/data/compare/newer.json: version: 99 is newer than this program, which "
        "reads up to 2: use the echolab that wrote it\n");
}

TEST_CASE("a metric that is missing is a gap in every form, never a zero", "[compare]") {
  const RunRecord a = read_run(kBefore), b = read_run(kFolder + "gaps.json");
  const Comparison comparison = compare(a, b, 0.05);
  const json document = to_json(comparison, "A", "B", 0.05);
  std::map<std::string, json> rows;
  for (const json& row : document["cells"][0]["rows"]) rows[row["variant"]] = row;
  // Nothing was kept of threads; the CPU of io_uring and the throughput of the other are unknown.
  for (const auto& [variant, figure] : {std::pair{"threads", "server_cpu_us_per_request"},
                                        {"threads", "requests_per_s"},
                                        {"io_uring", "server_cpu_us_per_request"},
                                        {"other", "requests_per_s"}}) {
    INFO(variant << " " << figure);
    CHECK(rows.at(variant)[figure]["a"].is_number());
    CHECK(rows.at(variant)[figure]["b"].is_null());
    CHECK(rows.at(variant)[figure]["ratio"].is_null());
  }
  CHECK(rows.at("io_uring")["verdicts"]["cpu"].is_null());
  CHECK(rows.at("io_uring")["verdicts"]["throughput"]["verdict"] == "equivalent");
  CHECK(rows.at("other")["verdicts"]["throughput"].is_null());
  CHECK(rows.at("other")["verdicts"]["cpu"]["verdict"] == "equivalent");
}

// ---- circumstances ------------------------------------------------------------------------------

TEST_CASE("every circumstance that differs is labelled, in every form", "[compare]") {
  for (const Comparable& field : comparable_fields()) {
    INFO(field.pointer);
    RunRecord a = sample_run(), b = sample_run();
    const json::json_pointer where(field.pointer);
    a.environment[where] = "as it was";
    b.environment[where] = "another one";
    const Comparison comparison = compare(a, b, std::nullopt);
    REQUIRE(comparison.differences.size() == 1);
    const Difference& d = comparison.differences[0];
    CHECK(d.field == field.pointer);
    CHECK(d.a == "as it was");
    CHECK(d.b == "another one");
    CHECK(d.doubtful == (field.weight == Weight::doubtful));
    CHECK(d.meaning == field.meaning);
    // Of another machine no verdict is given.
    const bool machine = d.doubtful && d.field.starts_with("/machine/");
    CHECK(comparison.other_machine == machine);
    CHECK(comparison.cells[0].rows[0].unfit == (machine ? "another machine" : ""));
    const std::string line =
        fmt::format("{} {}: as it was -> another one: {}\n", d.doubtful ? "DOUBTFUL" : "note    ",
                    field.pointer, field.meaning);
    CHECK(contains(to_text(comparison, "A", "B", std::nullopt), line));
    const std::string markdown = to_markdown(comparison, "A", "B", std::nullopt);
    CHECK(contains(markdown, d.doubtful ? "- **doubtful** " : "- note "));
    CHECK(contains(markdown, "as it was -> another one: " + d.meaning));
    const json listed = to_json(comparison, "A", "B", std::nullopt)["differences"];
    REQUIRE(listed.size() == 1);
    CHECK(listed[0]["field"] == d.field);
    CHECK(listed[0]["a"] == d.a);
    CHECK(listed[0]["b"] == d.b);
    CHECK(listed[0]["doubtful"] == d.doubtful);
    CHECK(listed[0]["meaning"] == d.meaning);
    // What only one of them knows differs as well; what neither knows does not.
    b.environment[where] = nullptr;
    const Comparison unknown = compare(a, b, std::nullopt);
    CHECK(find(unknown, field.pointer)->b == "unknown");
    CHECK(find(unknown, field.pointer)->meaning == std::string("perhaps ") + field.meaning);
    a.environment[where] = nullptr;
    CHECK(compare(a, b, std::nullopt).differences.empty());
  }
}

TEST_CASE("one line for each member of a circumstance that differs", "[compare]") {
  RunRecord a = sample_run(), b = sample_run();
  a.environment["kernel"]["vulnerabilities"] = {{"mds", "Vulnerable"}, {"l1tf", "Not affected"}};
  b.environment["kernel"]["vulnerabilities"] = {{"mds", "Mitigation"}, {"l1tf", "Not affected"}};
  a.environment["limits"]["nofile"] = {{"soft", 1024}, {"hard", 4096}};
  b.environment["limits"]["nofile"] = {{"soft", 1024}, {"hard", 8192}};
  const Comparison comparison = compare(a, b, std::nullopt);
  REQUIRE(comparison.differences.size() == 2);
  CHECK(find(comparison, "/kernel/vulnerabilities/mds") != nullptr);
  CHECK(find(comparison, "/limits/nofile/hard")->b == "8192");
}

TEST_CASE("the whole record is compared, but for what says nothing about speed", "[compare]") {
  const std::map<std::string, std::string> spared{
      {"/build/version", "the commit says more"},
      {"/io_uring/disabled_sysctl", "among the sysctls, and in /io_uring/available"},
      {"/io_uring/opcodes", "the kernel's release"},
      {"/io_uring/unknown_feature_bits", "the kernel's release"},
      {"/io_uring/unknown_opcodes", "the kernel's release"},
      {"/io_uring/why_not", "in words, why it is not available"},
      {"/libraries/cli11", "reads the command line"},
      {"/libraries/fmt", "writes the tables"},
      {"/libraries/nlohmann_json", "writes the files"},
      {"/limits/capabilities_effective", "nothing that is measured asks for one"},
      {"/limits/cgroup_version", "its limits are compared"},
      {"/limits/no_new_privs", "nothing that is measured asks for any"},
      {"/limits/processes/hard", "a server that may not have a thread fails, and says so"},
      {"/limits/processes/soft", "a server that may not have a thread fails, and says so"},
      {"/limits/root", "nothing that is measured asks for it"},
      {"/machine/load_average_1min", "gates judge every slice"},
      {"/machine/steal_percent_since_boot", "the steal of the run itself is compared"}};
  std::set<std::string> all;
  leaves(environment(), json::json_pointer(), all);
  for (const std::string& leaf : all) {
    bool compared = false;
    for (const Comparable& field : comparable_fields()) {
      compared = compared || (leaf + "/").starts_with(std::string(field.pointer) + "/");
    }
    INFO(leaf);
    CHECK(compared != (spared.count(leaf) == 1));
  }
}

TEST_CASE("what was planned and granted is compared", "[compare]") {
  struct Case {
    std::string field;
    bool doubtful;
    void (*change)(RunRecord&);
  };
  const Case cases[] = {
      {"placement", true, [](RunRecord& r) { r.placement.used = "split"; }},
      {"placement: server CPUs", true,
       [](RunRecord& r) {
         r.placement.server_cpus = {0, 1};
       }},
      {"plan: threads", true, [](RunRecord& r) { r.plan.threads = 2; }},
      {"plan: slice", true, [](RunRecord& r) { r.plan.slice = 20ms; }},
      {"plan: slices", false, [](RunRecord& r) { r.plan.slices = 16; }},
      {"plan: blocks", false, [](RunRecord& r) { r.plan.blocks = 9; }},
      {"plan: warm-up slices", false, [](RunRecord& r) { r.plan.warm_up = 9; }},
      {"plan: baseline", false, [](RunRecord& r) { r.plan.baseline = "other"; }},
      {"plan: quick", true, [](RunRecord& r) { r.plan.quick = true; }},
      {"steal", true, [](RunRecord& r) { r.steal.median_share = 0.2; }},
      {"other: command", true, [](RunRecord& r) { r.variants[1].command = "better {port}"; }},
      {"epoll: granted", true, [](RunRecord& r) { r.variants[0].features[0].granted = true; }}};
  for (const Case& one : cases) {
    INFO(one.field);
    const RunRecord a = sample_run();
    RunRecord b = sample_run();
    one.change(b);
    const Comparison comparison = compare(a, b, std::nullopt);
    REQUIRE(comparison.differences.size() == 1);
    CHECK(comparison.differences[0].field == one.field);
    CHECK(comparison.differences[0].doubtful == one.doubtful);
    CHECK_FALSE(comparison.other_machine);
  }
}

TEST_CASE("of long values the part that differs is shown", "[compare]") {
  RunRecord a = sample_run(), b = sample_run();
  const std::string same = "mitigations=auto,no_guest_host,no_guest_guest quiet reboot=k panic=1 ";
  a.environment["kernel"]["command_line"] = same + "isolcpus=1";
  b.environment["kernel"]["command_line"] = same + "isolcpus=1,2";
  CHECK(contains(to_text(compare(a, b, std::nullopt), "A", "B", std::nullopt),
                 "command_line: ... isolcpus=1 -> ... isolcpus=1,2: "));
  b.environment["kernel"]["command_line"] = same;
  CHECK(contains(to_text(compare(a, b, std::nullopt), "A", "B", std::nullopt),
                 "command_line: ... isolcpus=1 -> ... : "));
}

// ---- --fail-on ----------------------------------------------------------------------------------

TEST_CASE("what may be worse, for all that is known, is named", "[compare]") {
  const RunRecord a = read_run(kBefore), b = read_run(kFolder + "after.json");
  // Threads are worse for sure; libuv scatters.
  CHECK(compare(a, b, 0.05).may_be_worse() ==
        std::vector<std::string>{"libuv/c64/s64/d1 CPU/request", "libuv/c64/s64/d1 p99"});
  CHECK(compare(a, b, 0.20).may_be_worse().empty());
  CHECK(contains(compare_program({kBefore, kFolder + "after.json", "--fail-on", "5"}).out,
                 "\nMAY BE WORSE, for all that is known: libuv/c64/s64/d1 CPU/request, "
                 "libuv/c64/s64/d1 p99\n"));
}

TEST_CASE("a limit that cannot be meant is one line, and exit 2", "[compare]") {
  for (const char* limit : {"much", "%", "-5%", "5000%", "5%%", "nan"}) {
    INFO(limit);
    const Output output = compare_program({kBefore, kBefore, std::string("--fail-on=") + limit});
    CHECK(output.exit_status == 2);
    CHECK(output.out.empty());
    CHECK(output.err.starts_with(fmt::format("harness: --fail-on '{}': ", limit)));
    CHECK((contains(output.err, "expected a percentage such as 5%\n") ||
           contains(output.err, "too large")));
    CHECK(std::count(output.err.begin(), output.err.end(), '\n') == 1);
  }
}

TEST_CASE("a comparison that nobody can read is exit 1", "[compare]") {
  const char* folder = std::getenv("ECHOLAB_BIN_DIR");
  REQUIRE(folder != nullptr);
  for (const char* form : {"", " --markdown", " --json"}) {
    const Output output = run_program(
        {"/bin/sh", "-c",
         fmt::format("'{}/harness' compare {} {}{} >/dev/full", folder, kBefore, kBefore, form)},
        60s);
    CHECK(output.exit_status == 1);
    CHECK(output.err == "harness: cannot write the results to stdout\n");
  }
}
