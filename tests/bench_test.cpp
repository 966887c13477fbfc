// `harness bench` from end to end against real servers. Nothing here depends on how fast anything
// is.
#include "harness/bench.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "harness/process.hpp"
#include "harness/run_folder.hpp"
#include "harness/trial.hpp"
#include "tests/bench_program.hpp"
#include "tests/catch.hpp"
#include "tests/helpers.hpp"

using namespace echolab::harness;
using namespace std::chrono_literals;

namespace {

// Has slices that count, or none only because the machine that runs the tests is busy.
bool measured(const Result& result) {
  const auto excused = [](const SliceRow& row) {
    return row.gate == Gate::busy || row.gate == Gate::steal;
  };
  const bool any = result.latency.count() > 0;
  return any == result.summary.requests_per_s.has_value() && !result.slices.empty() &&
         (any || std::all_of(result.slices.begin(), result.slices.end(), excused));
}

}  // namespace

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
                               "2", "--blocks", "1", "--place", "same", "-o", folder.file("run")});
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
  CHECK(contains(output.out, "4 cells, 12 rows, 104 slices of 10 ms each in 8 blocks"));
  CHECK(contains(output.out, "c64/s4096/d16: threads, epoll, epoll (A/A)"));
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
  const Output output =
      bench({"--backends", "epoll", "--server", foreign("mortal", "timeout -s KILL 1.5"),
             "--connections", "2", "--sizes", "64", "--depths", "1", "--blocks", "1", "--slices",
             "150", "-o", folder.file("run")});
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
  bench_refuses({"--backends", "nonsense"}, "known are threads");
  bench_refuses({"--sizes", "0"}, "sizes");
  bench_refuses({"--connections", "0"}, "connections");
  bench_refuses({"--connections", "900000"}, "ulimit");
  bench_refuses({"--filter", "["}, "regular expression");
  bench_refuses({"--server", "nameless"}, "NAME=");
  bench_refuses({"--server", "other=command"}, "{port}");
  bench_refuses({"--baseline", "nobody"}, "baseline");
  bench_refuses({"--blocks", "0"}, "blocks");
  bench_refuses({"--cap", "soon"}, "--cap");
  bench_refuses({"--slice", "fast"}, "--slice");
  bench_refuses({"--slice", "10"}, "--slice '10': expected a duration");
  bench_refuses({"--rates", "10"}, "use a --slice of 500 ms or more");
  bench_refuses({"--seed", "-1"}, "--seed '-1'");
  bench_refuses({"--place", "elsewhere"}, "--place");
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
  const std::string command =
      "ulimit -f 12; exec '" + program("harness") +
      "' bench --backends epoll,threads"
      " --connections 2 --sizes 64 --depths 1,2 --blocks 1 --slices 100 --slice 1ms"
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
      "--blocks 1 --slices 150 -o '{}' 2> '{}' & pid=$!; "
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
  CHECK(run.cells[0].results.at(0).slices.size() >= 150);
  CHECK(std::filesystem::exists(folder.file("run/table.md")));
}
