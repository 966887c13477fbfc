// `harness load` as a program: what it says and how it exits when a run cannot be, or has no
// numbers.
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "harness/process.hpp"
#include "tests/bench_program.hpp"
#include "tests/catch.hpp"
#include "tests/helpers.hpp"
#include "tests/load_helpers.hpp"

using namespace echolab::harness;
using namespace std::chrono_literals;

namespace {

Output load_program(const TestServer& server, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {program("harness"), "load", "--connect", server.address()});
  return run_program(arguments, 60s);
}

}  // namespace

TEST_CASE("load refuses what cannot be meant, with exit 2", "[load]") {
  const TestServer server;
  const auto refused = [&](const std::vector<std::string>& arguments, const std::string& part) {
    const Output output = load_program(server, arguments);
    INFO(output.err);
    CHECK(output.exit_status == 2);
    CHECK(contains(output.err, part));
    CHECK(output.err.find('\n') == output.err.size() - 1);
    CHECK(output.out.empty());
  };
  refused({"-d", "10"}, "--duration '10': expected a duration");
  refused({"--seed", "-1"}, "--seed '-1'");
  refused({"--arrivals", "constant"}, "--rate");
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  const auto most = std::min<rlim_t>(limit.rlim_max, kMaxConnections);
  refused({"-c", std::to_string(most)}, fmt::format("{} connections", most));
}

TEST_CASE("load says why a file cannot be written", "[load]") {
  const TestServer server;
  const Output output = load_program(server, {"-d", "1s", "--hgrm", "/nonexistent/x"});
  CHECK(output.exit_status == 1);
  CHECK(output.err == "harness: cannot write '/nonexistent/x': No such file or directory\n");
}

TEST_CASE("a load in which nothing was due has no numbers, and fails", "[load]") {
  // Once in a day, on average.
  const std::vector<std::string> seldom{"-c", "2", "--rate", "0.00001", "-d", "1ms"};
  const TestServer server;
  const Output output = load_program(server, seldom);
  INFO(output.out << output.err);
  CHECK(output.exit_status == 1);
  CHECK(contains(output.err, "no request was due in 1 ms at 1e-05 requests/s"));
  CHECK(contains(output.out, "client CPU    - us/request"));
  CHECK(contains(output.out, "- % achieved"));
  std::vector<std::string> as_json = seldom;
  as_json.emplace_back("--json");
  const nlohmann::json document = nlohmann::json::parse(load_program(server, as_json).out);
  CHECK(contains(document["error"], "no request was due"));
  CHECK(document["requests"] == 0);
  for (const char* field : {"requests_per_s", "client_cpu_us_per_request", "inflight_mean"}) {
    INFO(field);
    CHECK(document[field].is_null());
  }
}

TEST_CASE("a load that cannot show its results still writes its file", "[load]") {
  const TemporaryFolder folder;
  const TestServer server;
  const Output output = run_program(
      {"/bin/bash", "-c",
       fmt::format(
           "'{}' load --connect {} -c 2 -d 20ms --hgrm '{}' | true; exit ${{PIPESTATUS[0]}}",
           program("harness"), server.address(), folder.file("h"))},
      60s);
  CHECK(output.exit_status == 1);
  CHECK(contains(output.err, "cannot write the results to stdout"));
  CHECK(contains(slurp(folder.file("h")), "Percentile"));
}

TEST_CASE("a load that is interrupted before it measures says so", "[load]") {
  const std::string signal = GENERATE(std::string("INT"), std::string("TERM"), std::string("HUP"));
  const TemporaryFolder folder;
  const TestServer silent([](Stream&, std::string& in) {
    in.clear();
    return Then::go_on;
  });
  const std::string command = fmt::format(
      "'{}' load --connect {} --patience 1m 2> '{}' & pid=$!; "
      "until grep -q connecting '{}'; do kill -0 $pid || break; sleep 0.05; done; "
      "kill -{} $pid; wait $pid",
      program("harness"), silent.address(), folder.file("err"), folder.file("err"), signal);
  const Output output = run_program({"/bin/sh", "-c", command}, 50s);
  INFO(slurp(folder.file("err")));
  CHECK(output.exit_status == 130);
  CHECK(contains(slurp(folder.file("err")), "interrupted before anything was measured"));
}
