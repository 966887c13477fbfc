// The gates and the summary as pure functions, and `harness bench` from end to end against real
// servers. Nothing here depends on how fast anything is.
#include "harness/bench.hpp"

#include <fmt/format.h>

#include <cmath>
#include <fstream>

#include "harness/process.hpp"
#include "harness/run_folder.hpp"
#include "harness/summary.hpp"
#include "harness/trial.hpp"
#include "tests/bench_program.hpp"
#include "tests/catch.hpp"
#include "tests/helpers.hpp"
#include "tests/sample_run.hpp"

using namespace echolab::harness;
using namespace std::chrono_literals;

namespace {

bool near(double a, double b) {
  return std::abs(a - b) < 1e-9 * std::abs(b);
}

}  // namespace

// ---- gates and summary --------------------------------------------------------------------------

TEST_CASE("Little's law is checked in closed loop", "[gates]") {
  const CellShape closed{1, 64, 1, 0};
  SliceRow row = sample_slice(0, 100, 1'000'000);
  CHECK(judge_slice(row, closed, true) == Gate::kept);
  row.inflight_mean = 1.04;
  CHECK(judge_slice(row, closed, true) == Gate::kept);
  row.inflight_mean = 1.06;
  CHECK(judge_slice(row, closed, true) == Gate::little);
  row.inflight_mean = 0.94;
  CHECK(judge_slice(row, closed, true) == Gate::little);
  row.requests = 0;
  CHECK(judge_slice(row, closed, true) == Gate::empty);
}

TEST_CASE("an open loop must be offered in full, by a client that is not saturated", "[gates]") {
  const CellShape open{1, 64, kOpenLoopDepth, 1000};
  SliceRow row = sample_slice(0, 1000, 1'000'000);
  row.due = 1000;
  CHECK(judge_slice(row, open, false) == Gate::kept);
  row.due = 1020;
  CHECK(judge_slice(row, open, false) == Gate::achieved);
  row.due = 1000;
  row.client_cpu_ns = 9'800'000;  // of 10 ms
  CHECK(judge_slice(row, open, false) == Gate::client);
  row.client_cpu_ns = 5'000'000;
  row.server_cpu_ns = 4'900'000;  // on the same CPU that leaves nothing
  CHECK(judge_slice(row, open, false) == Gate::kept);
  CHECK(judge_slice(row, open, true) == Gate::client);
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

TEST_CASE("the median is the middle", "[summary]") {
  CHECK(median({3}) == 3);
  CHECK(median({5, 1, 3}) == 3);
  CHECK(median({4, 1, 3, 2}) == 2.5);
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
  CHECK(near(*ours.syscalls_per_request, (24015 * 2 + 40) / 24015.0));
  CHECK(near(ours.syscalls_by_kind.at("recv"), 1.0));
  CHECK(near(*ours.kib_per_connection, 640'000 / 1024.0 / 64));
  CHECK_FALSE(theirs.syscalls_per_request);
  CHECK_FALSE(theirs.wakeups_per_request);
  CHECK(ours.p99_us);         // 20 013 samples
  CHECK_FALSE(ours.p999_us);  // not 100 beyond it
  CHECK_FALSE(ours.raw_p50_us);
  CHECK(run.cells[1].results[0].summary.raw_p50_us);
  cell.shape.connections = 1;
  summarise(cell, run.plan, run.placement, run.steal);
  CHECK_FALSE(cell.results[0].summary.kib_per_connection);
}

TEST_CASE("too many dropped slices, or an overflow, leave no verdict", "[gates]") {
  RunRecord run = sample_run();
  CellRecord& cell = run.cells[0];
  CHECK(cell.results[0].no_verdict.empty());  // one of six
  cell.results[0].slices[4].gate = Gate::little;
  (*cell.results[0].window.counters)["cq_overflows"] = 3;
  summarise(cell, run.plan, run.placement, run.steal);
  CHECK(contains(cell.results[0].no_verdict, "2 of 6 slices dropped"));
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

// ---- labels -------------------------------------------------------------------------------------

TEST_CASE("a server must be what its name says", "[label]") {
  const auto wrong = [](const std::string& spec, const std::string& says, unsigned ring,
                        unsigned epoll) {
    DescriptorKinds kinds;
    kinds.io_uring = ring;
    kinds.eventpoll = epoll;
    return error_of([&] { check_label(spec, {{"backend", says}}, kinds); });
  };
  CHECK(wrong("io_uring", "io_uring", 1, 0).empty());
  CHECK(wrong("epoll:lt", "epoll:lt", 0, 2).empty());
  CHECK(wrong("threads", "threads", 0, 0).empty());
  CHECK(contains(wrong("io_uring", "epoll", 1, 0), "says that it runs 'epoll'"));
  CHECK(contains(wrong("io_uring", "io_uring", 0, 1), "no io_uring"));
  CHECK(contains(wrong("epoll", "epoll", 1, 1), "unexpected io_uring"));
  CHECK(contains(wrong("libuv", "libuv", 0, 0), "no epoll"));
  CHECK_FALSE(error_of([] { check_threads("threads", 5, 64, 1); }).empty());
  CHECK(error_of([] { check_threads("threads", 66, 64, 1); }).empty());
  CHECK_FALSE(error_of([] { check_threads("epoll", 70, 64, 1); }).empty());
  CHECK(error_of([] { check_threads("epoll", 2, 64, 1); }).empty());
  CHECK(error_of([] { check_threads("threads:pool=4", 5, 64, 1); }).empty());
}

// ---- from end to end ----------------------------------------------------------------------------

TEST_CASE("a small matrix of own and foreign servers", "[bench]") {
  const TemporaryFolder folder;
  const std::string out = folder.file("run");
  const Output output = bench(small(
      out, {"--backends", "threads,epoll", "--server", foreign("other"), "--rates", "none,5000"}));
  INFO(output.err);
  CHECK(output.exit_status == 0);
  const RunRecord run = read_run(out);
  CHECK_FALSE(run.partial);
  CHECK(run.seed == 1);
  CHECK(run.command.at(1) == "bench");
  CHECK(run.placement.used == "same");
  REQUIRE(run.cells.size() == 2);
  for (const CellRecord& cell : run.cells) {
    REQUIRE(cell.results.size() == 3);
    for (const Result& result : cell.results) {
      INFO(cell.shape.name() << " " << result.variant);
      CHECK(result.error.empty());
      CHECK(result.slices.size() >= 5);
      CHECK(result.window.requests > 0);
      CHECK(result.window.counters.has_value() == (result.variant != "other"));
      const bool open = cell.shape.rate > 0;
      CHECK(result.raw.has_value() == open);
      // On a slow machine the client may be too busy in every slice of the open loop.
      if (!open) CHECK(result.latency.count() > 0);
      const std::string hgrm = out + "/hgrm/" + file_stem(result.variant, cell.shape) + ".hgrm";
      CHECK(std::filesystem::exists(hgrm) == (result.latency.count() > 0));
    }
  }
  const Summary& epoll = run.cells[0].results[1].summary;
  CHECK(*epoll.syscalls_per_request > 1);
  CHECK(*epoll.ratio_cpu == 1);
  CHECK(run.cells[0].results[2].summary.ratio_cpu.has_value());
  CHECK(contains(slurp(out + "/table.md"), "| threads | "));
  CHECK(contains(output.out, "2 connections, 64 B, depth 1, closed loop"));
  CHECK(contains(output.err, "cell 2 of 2"));
  CHECK_FALSE(contains(output.err, "\x1b"));  // no terminal, no redrawing

  const Output again = bench(small(out, {"--backends", "epoll"}));
  CHECK(again.exit_status == 1);
  CHECK(contains(again.err, "already holds a run"));
}

TEST_CASE("every backend that is available here is what it says", "[bench]") {
  const TemporaryFolder folder;
  const Output output =
      bench(small(folder.file("run"), {"--backends",
                                       "epoll,threads,io_uring,libuv,epoll:lt,libuv:inline,"
                                       "io_uring:plain,io_uring:multishot,threads:pool=2"}));
  INFO(output.err);
  CHECK(output.exit_status == 0);
  const RunRecord run = read_run(folder.file("run"));
  std::size_t available = 0;
  for (const VariantRecord& v : run.variants) available += v.unavailable.empty() ? 1 : 0;
  CHECK(available >= 4);
  CHECK(run.cells.at(0).results.size() == available);
}

TEST_CASE("a dry run starts nothing and writes nothing", "[bench]") {
  const TemporaryFolder folder;
  const Output output = bench({"--dry-run", "-o", folder.file("run"), "--filter", "threads/c64"});
  CHECK(output.exit_status == 0);
  CHECK(contains(output.out, "4 cells, 8 rows, 100 slices of 10 ms"));
  CHECK(contains(output.out, "c64/s4096/d16: threads, epoll"));
  CHECK_FALSE(std::filesystem::exists(folder.file("run")));
}

TEST_CASE("a quick run gives numbers and says that it gives no verdict", "[bench]") {
  const TemporaryFolder folder;
  const Output output = bench({"--quick", "--backends", "epoll", "--connections", "2", "--depths",
                               "1", "--slices", "3", "-o", folder.file("run")});
  CHECK(output.exit_status == 0);
  CHECK(contains(output.out, "never a verdict"));
  CHECK(read_run(folder.file("run")).plan.quick);
}

TEST_CASE("a server that dies in mid-run costs its row only", "[bench]") {
  const TemporaryFolder folder;
  const Output output = bench(
      {"--backends", "epoll", "--server", foreign("mortal", "timeout -s KILL 1.5"), "--connections",
       "2", "--sizes", "64", "--depths", "1", "--slices", "150", "-o", folder.file("run")});
  INFO(output.err);
  CHECK(output.exit_status == 1);
  CHECK(contains(output.err, "1 of 2 rows failed"));
  const RunRecord run = read_run(folder.file("run"));
  REQUIRE(run.cells.size() == 1);
  REQUIRE(run.cells[0].results.size() == 2);
  CHECK(run.cells[0].results[0].error.empty());
  CHECK(run.cells[0].results[0].summary.requests_per_s.has_value());
  CHECK(contains(run.cells[0].results[1].error, "mortal"));
  CHECK(contains(output.out, "FAILED: mortal"));
}

TEST_CASE("a server that corrupts its replies costs its row only", "[bench]") {
  if (run_program({"/usr/bin/env", "python3", "-c", ""}, 20s).exit_status != 0) {
    WARN("SKIPPED: python3 is not installed");
    return;
  }
  const TemporaryFolder folder;
  std::ofstream(folder.file("server.py")) << R"(
import socket, sys, threading
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
def serve(peer):
    total = 0
    while data := bytearray(peer.recv(65536)):
        total += len(data)
        if total > 3000: data[-1] ^= 1
        peer.sendall(data)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
)";
  const Output output =
      bench(small(folder.file("run"), {"--backends", "epoll", "--server",
                                       "liar=python3 '" + folder.file("server.py") + "' {port}"}));
  INFO(output.err);
  CHECK(output.exit_status == 1);
  const RunRecord run = read_run(folder.file("run"));
  CHECK(run.cells.at(0).results.at(0).error.empty());
  CHECK(contains(run.cells.at(0).results.at(1).error, "liar"));
}

TEST_CASE("a server that does not start costs its row only", "[bench]") {
  const TemporaryFolder folder;
  const Output output = bench(small(
      folder.file("run"), {"--backends", "epoll", "--server", "stillborn=sh -c 'exit 7' {port}"}));
  CHECK(output.exit_status == 1);
  CHECK(contains(read_run(folder.file("run")).cells.at(0).results.at(1).error, "stillborn"));
}

TEST_CASE("what cannot be meant ends at once, in one line, with exit 2", "[bench]") {
  const auto refused = [](const std::vector<std::string>& arguments, const std::string& part) {
    const Output output = bench(arguments);
    INFO(output.err);
    CHECK(output.exit_status == 2);
    CHECK(contains(output.err, part));
    CHECK(output.err.find('\n') == output.err.size() - 1);
    CHECK(output.out.empty());
  };
  refused({"--backends", "nonsense"}, "known are threads");
  refused({"--sizes", "0"}, "sizes");
  refused({"--connections", "0"}, "connections");
  refused({"--connections", "900000"}, "ulimit");
  refused({"--filter", "["}, "regular expression");
  refused({"--server", "nameless"}, "NAME=");
  refused({"--server", "other=command"}, "{port}");
  refused({"--baseline", "nobody"}, "baseline");
  refused({"--slice", "fast"}, "--slice");
  refused({"--slice", "10"}, "--slice '10': expected a duration");
  refused({"--rates", "10"}, "use a --slice of 500 ms or more");
  refused({"--seed", "-1"}, "--seed '-1'");
  refused({"--place", "elsewhere"}, "--place");
}

TEST_CASE("a folder that cannot be written to ends the run before it begins", "[bench]") {
  const TemporaryFolder folder;
  std::ofstream(folder.file("file")) << "in the way";
  const Output output = bench(small(folder.file("file") + "/run", {"--backends", "epoll"}));
  CHECK(output.exit_status == 1);
  CHECK(contains(output.err, "cannot write " + folder.file("file")));
  CHECK(output.err.find('\n') == output.err.size() - 1);
}

TEST_CASE("a disk that fills up is one line, and what fits is kept", "[bench]") {
  const TemporaryFolder folder;
  // A limit on the size of files fails a write as a full disk does.
  const std::string command = "ulimit -f 12; exec '" + program("harness") +
                              "' bench --backends epoll,threads"
                              " --connections 2 --sizes 64 --depths 1,2 --slices 100 --slice 1ms"
                              " -o '" +
                              folder.file("run") + "'";
  const Output output = run_program({"/bin/bash", "-c", command}, 100s);
  INFO(output.err);
  CHECK(output.exit_status == 1);
  CHECK(contains(output.err, "cannot write " + folder.file("run") + "/run.json"));
  CHECK(contains(output.err, "kept in " + folder.file("run") + ": table.md"));
  CHECK(contains(output.out, "threads"));
  CHECK(contains(slurp(folder.file("run/table.md")), "| threads | "));
  CHECK_FALSE(std::filesystem::exists(folder.file("run/run.json")));
  CHECK_FALSE(std::filesystem::exists(folder.file("run/run.json.tmp")));
}

TEST_CASE("an interrupted run writes what it has, marked partial", "[bench]") {
  const std::string signal = GENERATE(std::string("INT"), std::string("TERM"), std::string("HUP"));
  const TemporaryFolder folder;
  // The second cell would take minutes; the signal comes when the first one is in.
  const std::string command = fmt::format(
      "'{}' bench --backends epoll,threads --connections 2 --sizes 64 --depths 1 --rates 0,1000 "
      "--slices 300 -o '{}' 2> '{}' & pid=$!; "
      "until grep -q 'cell 2 of 2' '{}'; do kill -0 $pid || break; sleep 0.05; done; "
      "kill -{} $pid; wait $pid",
      program("harness"), folder.file("run"), folder.file("err"), folder.file("err"), signal);
  const Output output = run_program({"/bin/sh", "-c", command}, 100s);
  INFO(slurp(folder.file("err")));
  CHECK(output.exit_status == 130);
  CHECK(contains(slurp(folder.file("err")), "interrupted"));
  CHECK(contains(output.out, "PARTIAL"));
  const RunRecord run = read_run(folder.file("run"));
  CHECK(run.partial);
  REQUIRE_FALSE(run.cells.empty());
  CHECK(run.cells[0].results.at(0).slices.size() >= 300);
  CHECK(std::filesystem::exists(folder.file("run/table.md")));
}
