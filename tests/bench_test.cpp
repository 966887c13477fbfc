// The plan, the gates and the summary as pure functions, and `harness bench` from end to end
// against real servers. Nothing here depends on how fast anything is.
#include "harness/bench.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>
#include <set>

#include "harness/process.hpp"
#include "harness/run_folder.hpp"
#include "harness/trial.hpp"
#include "tests/catch.hpp"
#include "tests/helpers.hpp"
#include "tests/skip.hpp"

using namespace echolab::harness;
using namespace std::chrono_literals;

namespace {

Plan plan_of(const std::vector<std::string>& names) {
  Plan plan;
  for (const std::string& name : names) plan.contenders.push_back({name, ""});
  return plan;
}

std::string program(const std::string& name) {
  const char* folder = std::getenv("ECHOLAB_BIN_DIR");
  REQUIRE(folder != nullptr);
  return std::string(folder) + "/" + name;
}

// A server in the matrix by its command line: our own, as if it were somebody else's.
std::string foreign(const std::string& name, const std::string& prefix = "") {
  return fmt::format("{}={} '{}' --backend epoll --listen 127.0.0.1:{{port}}", name, prefix,
                     program("echo-server"));
}

bool python() {
  if (run_program({"/usr/bin/env", "python3", "-c", ""}, 20s).exit_status == 0) return true;
  echolab::test::skip("python3 is not installed");
  return false;
}

Output bench(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {program("harness"), "bench"});
  return run_program(arguments, 100s);
}

// Has slices that count, or none only because the machine that runs the tests is busy.
bool measured(const Result& result) {
  const auto excused = [](const SliceRow& row) {
    return row.gate == Gate::busy || row.gate == Gate::steal;
  };
  const bool any = result.latency.count() > 0;
  return any == result.summary.requests_per_s.has_value() && !result.slices.empty() &&
         (any || std::all_of(result.slices.begin(), result.slices.end(), excused));
}

// A matrix of one small cell, so that a test takes a second.
std::vector<std::string> small(const std::string& folder, std::vector<std::string> more = {}) {
  std::vector<std::string> out{"--connections", "2",    "--sizes", "64",  "--depths", "1",
                               "--slices",      "5",    "--slice", "2ms", "--seed",   "1",
                               "--place",       "same", "-o",      folder};
  out.insert(out.end(), more.begin(), more.end());
  return out;
}

}  // namespace

// ---- the plan -----------------------------------------------------------------------------------

TEST_CASE("the matrix is the product of its lists", "[plan]") {
  Plan plan = plan_of({"threads", "epoll"});
  CHECK(plan.expand().size() == 3 * 2 * 2);
  plan.rates = {0, 1000, 2000};  // open loop has no depths
  const std::vector<Cell> cells = plan.expand();
  CHECK(cells.size() == 3 * 2 * 2 + 2 * 3 * 2);
  std::set<std::string> names;
  for (const Cell& cell : cells) {
    names.insert(cell.shape.name());
    CHECK(cell.contenders == std::vector<std::size_t>{0, 1});
    if (cell.shape.rate > 0) CHECK(cell.shape.depth == kOpenLoopDepth);
  }
  CHECK(names.size() == cells.size());
  CHECK(names.count("c64/s4096/d16") == 1);
  CHECK(names.count("c64/s4096/r2000") == 1);
}

TEST_CASE("the default plan is what the project promises", "[plan]") {
  const Plan plan = plan_of(default_backends());
  CHECK(plan.contenders.size() == 7);
  CHECK(plan.slices >= 100);
  CHECK(plan.slice == 10ms);
  CHECK(plan.baseline == "epoll");
  CHECK(estimated_time(plan, plan.expand()) < most_time(plan, plan.expand()));
  CHECK(most_time(plan, plan.expand()) < 175s);  // starting and stopping may take a little more
}

TEST_CASE("a filter takes matching rows and their baseline", "[plan]") {
  Plan plan = plan_of({"threads", "epoll", "epoll:lt", "libuv"});
  plan.filter = "^libuv/c64/.*/d1$";
  const std::vector<Cell> cells = plan.expand();
  REQUIRE(cells.size() == 2);
  for (const Cell& cell : cells) {
    CHECK(cell.shape.connections == 64);
    CHECK(cell.contenders == std::vector<std::size_t>{1, 3});
  }
  plan.filter = "no such row";
  CHECK(contains(error_of([&] { (void)plan.expand(); }), "matches no cell"));
  plan.filter = "(";
  CHECK(contains(error_of([&] { (void)plan.expand(); }), "regular expression"));
}

TEST_CASE("a plan that cannot be meant is refused in one line", "[plan]") {
  Plan plan = plan_of({"epoll", "threads"});
  const auto refused = [&](const std::string& part) {
    const std::string line = error_of([&] { (void)plan.expand(); });
    INFO(line);
    CHECK(contains(line, part));
    CHECK_FALSE(contains(line, "\n"));
  };
  SECTION("size 0") {
    plan.sizes = {0};
    refused("sizes: 0");
  }
  SECTION("no connections") {
    plan.connections = {0};
    refused("connections: 0");
  }
  SECTION("the same twice") {
    plan.depths = {1, 16, 1};
    refused("twice");
  }
  SECTION("a rate that is no number") {
    plan.rates = {std::nan("")};
    refused("rates");
  }
  SECTION("no slices") {
    plan.slices = 0;
    refused("slices");
  }
  SECTION("a slice too short to hold a request") {
    plan.slice = 10us;
    refused("slice");
  }
  SECTION("a baseline that nobody is") {
    plan.baseline = "libuv";
    refused("--baseline");
  }
  SECTION("the same backend twice") {
    plan.contenders.push_back({"epoll", ""});
    refused("twice");
  }
  SECTION("a server without a port") {
    plan.contenders.push_back({"other", "other-server"});
    refused("{port}");
  }
  SECTION("names that become the same file") {
    plan.contenders.push_back({"a:b", "x {port}"});
    plan.contenders.push_back({"a-b", "x {port}"});
    refused("file names");
  }
}

TEST_CASE("a round has every contender once, in orders that a seed repeats", "[plan]") {
  const std::vector<std::size_t> contenders{0, 2, 3, 5, 6, 7, 9};
  std::mt19937_64 one = cell_rng(42, 3), same = cell_rng(42, 3), other = cell_rng(42, 4);
  bool differs = false;
  std::map<std::pair<std::size_t, std::size_t>, int> places;
  constexpr int kRounds = 7000;
  for (int round = 0; round < kRounds; ++round) {
    const std::vector<std::size_t> order = round_order(contenders, one);
    CHECK(order == round_order(contenders, same));
    differs = differs || order != round_order(contenders, other);
    CHECK(std::set<std::size_t>(order.begin(), order.end()).size() == contenders.size());
    for (std::size_t i = 0; i < order.size(); ++i) ++places[{order[i], i}];
  }
  CHECK(differs);
  CHECK(places.size() == 49);  // everyone has been everywhere,
  for (const auto& place : places) {
    CHECK(std::abs(place.second - kRounds / 7) < 200);  // about equally often (6.8 sigma)
  }
}

TEST_CASE("the descriptors of the largest cell are counted", "[plan]") {
  Plan plan = plan_of({"epoll", "threads"});
  const std::size_t needed = descriptors_needed(plan.expand());
  CHECK(needed > 2000);
  CHECK(needed < 2200);
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
      out, {"--backends", "threads,epoll", "--server", foreign("other"), "--rates", "none,500"}));
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
      // In an open loop of 500/s, a slice of 2 ms may well have no request.
      if (!open) CHECK(measured(result));
      const std::string hgrm = out + "/hgrm/" + file_stem(result.variant, cell.shape) + ".hgrm";
      CHECK(std::filesystem::exists(hgrm) == (result.latency.count() > 0));
    }
  }
  const Summary& epoll = run.cells[0].results[1].summary;
  CHECK(*epoll.syscalls_per_request > 1);
  CHECK(epoll.run_delay_us_per_request.has_value() ==
        std::filesystem::exists("/proc/self/schedstat"));
  CHECK(epoll.ratio_cpu.value_or(1) == 1);
  CHECK(epoll.ratio_cpu.has_value() == epoll.requests_per_s.has_value());
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

TEST_CASE("a busy CPU does not pass for a quiet one", "[bench]") {
  const TemporaryFolder folder;
  // Two processes that never sleep on the CPU that a shared placement takes, the first allowed one:
  // what server and client are left with is a third, whatever else the machine does.
  const std::string command = fmt::format(
      "cpu=$(taskset -cp $$ | sed 's/.*: //; s/[-,].*//'); "
      "for i in 1 2; do taskset -c $cpu sh -c 'while :; do :; done' & hogs=\"$hogs $!\"; done; "
      "'{}' bench --backends epoll --connections 1 --sizes 64 --depths 1 --slices 20 --place same "
      "-o '{}'; status=$?; kill $hogs; exit $status",
      program("harness"), folder.file("run"));
  const Output output = run_program({"/bin/sh", "-c", command}, 100s);
  INFO(output.err);
  CHECK(output.exit_status == 0);
  CHECK(contains(output.out, "no verdict: busy CPU"));
  const RunRecord run = read_run(folder.file("run"));
  const Result& row = run.cells.at(0).results.at(0);
  CHECK(contains(row.no_verdict, "because something else ran on the CPU"));
  const auto busy = std::count_if(row.slices.begin(), row.slices.end(),
                                  [](const SliceRow& s) { return s.gate == Gate::busy; });
  CHECK(busy >= 10);
}

TEST_CASE("verification does not count as memory of the connections", "[bench]") {
  if (!python()) return;
  const TemporaryFolder folder;
  // Keeps what it has received, so its memory tells how much that was.
  std::ofstream(folder.file("server.py")) << R"(
import selectors, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=128)
selector = selectors.DefaultSelector()
selector.register(listener, selectors.EVENT_READ)
kept = []
while True:
    for key, _ in selector.select():
        if key.fileobj is listener:
            selector.register(listener.accept()[0], selectors.EVENT_READ)
            continue
        data = key.fileobj.recv(1 << 20)
        if data: kept.append(bytes(data)); key.fileobj.sendall(data)
        else: selector.unregister(key.fileobj); key.fileobj.close()
)";
  const Output output = bench({"--backends", "none", "--server",
                               "hoarder=python3 '" + folder.file("server.py") + "' {port}",
                               "--connections", "64", "--sizes", "64", "--depths", "1", "--slices",
                               "2", "--place", "same", "-o", folder.file("run")});
  INFO(output.err);
  const RunRecord run = read_run(folder.file("run"));
  const Result& result = run.cells.at(0).results.at(0);
  REQUIRE(result.error.empty());
  REQUIRE(result.window.memory.size() == 2);
  const MemoryPoint &few = result.window.memory[0], &many = result.window.memory[1];
  CHECK(few.connections == 16);
  CHECK(many.connections == 64);
  CHECK(many.tcp_sockets > 0);
  // 16 times 64 KiB and 48 times 4 KiB are 1.2 MB, more than came from 48 connections.
  CHECK(many.rss_bytes + 1'000'000 < result.window.rss_connected_bytes);
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
  CHECK(measured(run.cells[0].results[0]));
  CHECK(contains(run.cells[0].results[1].error, "mortal"));
  CHECK(contains(output.out, "FAILED: mortal"));
}

TEST_CASE("a server that corrupts its replies costs its row only", "[bench]") {
  if (!python()) return;
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

TEST_CASE("a disk that fills up is one line, and the table is still there", "[bench]") {
  const TemporaryFolder folder;
  // A limit on the size of files fails a write as a full disk does.
  const std::string command = "trap '' XFSZ; ulimit -f 16; exec '" + program("harness") +
                              "' bench --backends epoll,threads"
                              " --connections 2 --sizes 64 --depths 1,2 --slices 20 -o '" +
                              folder.file("run") + "'";
  const Output output = run_program({"/bin/bash", "-c", command}, 100s);
  INFO(output.err);
  CHECK(output.exit_status == 1);
  CHECK(contains(output.err, "cannot write " + folder.file("run") + "/run.json"));
  CHECK(contains(output.out, "threads"));
  CHECK_FALSE(std::filesystem::exists(folder.file("run/run.json")));
  CHECK_FALSE(std::filesystem::exists(folder.file("run/run.json.tmp")));
}

TEST_CASE("an interrupted run writes what it has, marked partial", "[bench]") {
  const std::string signal = GENERATE(std::string("INT"), std::string("TERM"));
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
