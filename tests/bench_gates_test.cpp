// Runs that must not have a verdict, from end to end: real servers and a real `harness bench`. Each
// is caught, its row says by which gate or why, and no verdict is given about it.
#include <fmt/format.h>

#include <filesystem>

#include "harness/process.hpp"
#include "harness/run_folder.hpp"
#include "tests/bench_program.hpp"
#include "tests/catch.hpp"
#include "tests/helpers.hpp"
#include "tests/skip.hpp"

using namespace echolab::harness;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

void write_program(const std::string& path, const std::string& text) {
  std::ofstream(path) << text;
  fs::permissions(path, fs::perms::owner_all);
}

const Result& row(const RunRecord& run, const std::string& variant) {
  for (const Result& result : run.cells.at(0).results) {
    if (result.variant == variant) return result;
  }
  FAIL("no row " << variant);
  throw std::logic_error("unreachable");
}

bool has_verdict(const Result& result) {
  for (const auto* one :
       {&result.verdicts.cpu, &result.verdicts.throughput, &result.verdicts.p99}) {
    if (*one && (*one)->verdict != Verdict::none) return true;
  }
  return false;
}

const GateResult* gate(const Result& result, const std::string& name) {
  for (const GateResult& one : result.gates) {
    if (one.gate == name) return &one;
  }
  return nullptr;
}

bool failed(const Result& result, const std::string& name) {
  const GateResult* one = gate(result, name);
  return one != nullptr && !one->passed;
}

std::uint64_t dropped(const Result& result, const std::string& name) {
  const GateResult* one = gate(result, name);
  return one == nullptr ? 0 : one->dropped;
}

// Blocks enough for verdicts, slices few and short.
const std::vector<std::string> kBlocks{"--blocks", "7", "--slices", "7"};

// A `harness bench` beside which something else stands in the place of our echo-server. The real
// one is in $REAL.
Output bench_beside(const TemporaryFolder& folder, const std::string& stand_in,
                    const std::string& backends) {
  fs::copy_file(program("harness"), folder.file("harness"));
  write_program(folder.file("echo-server"), stand_in);
  std::vector<std::string> arguments = small(folder.file("run"));
  arguments.insert(arguments.begin(), {"/usr/bin/env", "REAL=" + program("echo-server"),
                                       folder.file("harness"), "bench", "--backends", backends});
  return run_program(arguments, 100s);
}

}  // namespace

// ---- labels -------------------------------------------------------------------------------------

TEST_CASE("epoll under another name is found by what it says", "[bench][gates]") {
  const TemporaryFolder folder;
  const Output output = bench_beside(folder,
                                     "#!/bin/sh\n"
                                     "[ \"$1\" = --backend ] || exec \"$REAL\" \"$@\"\n"
                                     "shift 2\n"
                                     "exec \"$REAL\" --backend epoll \"$@\"\n",
                                     "epoll,threads,io_uring");
  INFO(output.err);
  CHECK(output.exit_status == 1);
  const RunRecord run = read_run(folder.file("run"));
  CHECK(row(run, "epoll").error.empty());
  for (const VariantRecord& variant : run.variants) {
    if (variant.name.starts_with("epoll") || !variant.unavailable.empty()) continue;
    INFO(variant.name);
    const Result& impostor = row(run, variant.name);
    CHECK(impostor.error == variant.name + ": wrong label: the server says that it runs 'epoll'");
    CHECK(contains(output.out, "FAILED: " + impostor.error));
  }
}

TEST_CASE("epoll under another name is found from outside when it lies", "[bench][gates]") {
  if (!python()) return;
  const TemporaryFolder folder;
  const Output output = bench_beside(folder, R"(#!/usr/bin/env python3
import json, os, select, signal, socket, sys
if sys.argv[1] != "--backend": os.execv(os.environ["REAL"], [os.environ["REAL"], *sys.argv[1:]])
backend, path = sys.argv[2], sys.argv[sys.argv.index("--stats-json") + 1]
if backend == "epoll":
    os.execv(os.environ["REAL"], [os.environ["REAL"], *sys.argv[1:]])
listener = socket.create_server(("127.0.0.1", 0))
loop = select.epoll()
loop.register(listener, select.EPOLLIN)
snapshot = 0
def tell(*_):
    global snapshot
    snapshot += 1
    with open(path + ".new", "w") as file:
        json.dump({"schema": "echolab.stats", "version": 1, "backend": backend, "threads": 1,
                   "pid": os.getpid(), "port": listener.getsockname()[1], "snapshot": snapshot,
                   "final": False, "features": [], "counters": {}, "batches": []}, file)
    os.rename(path + ".new", path)
signal.signal(signal.SIGUSR1, tell)
tell()
print(listener.getsockname()[1], flush=True)
while True: loop.poll()
)",
                                     "epoll,threads,io_uring");
  INFO(output.err);
  CHECK(output.exit_status == 1);
  const RunRecord run = read_run(folder.file("run"));
  CHECK(row(run, "epoll").error.empty());
  CHECK(row(run, "threads").error ==
        "threads: wrong label: the server has unexpected epoll descriptors open");
  if (!run.variants.at(2).unavailable.empty()) return;  // no io_uring here
  CHECK(row(run, "io_uring").error ==
        "io_uring: wrong label: the server has no io_uring descriptors open");
}

// ---- servers ------------------------------------------------------------------------------------

TEST_CASE("a server with wrong bytes, and one that dies, have no verdict", "[bench][gates]") {
  if (!python()) return;
  const TemporaryFolder folder;
  // Right for a tenth of a second, in which bytes are verified; then a bit flips, or it is over. A
  // block has three slices of 20 ms of each of the four.
  std::ofstream(folder.file("server.py")) << R"(
import os, select, socket, sys, time
port, what, began = int(sys.argv[1]), sys.argv[2], None
listener = socket.create_server(("127.0.0.1", port))
peers = {}
while True:
    for ready in select.select([listener, *peers], [], [])[0]:
        if ready is listener:
            peers[listener.accept()[0]] = True
            continue
        data = bytearray(ready.recv(65536))
        if not data:
            del peers[ready]
            continue
        began = began or time.monotonic()
        over = time.monotonic() > began + 0.1
        if over and what == "die": os._exit(3)
        if over: data[-1] ^= 1
        ready.sendall(data)
)";
  const auto server = [&](const std::string& name, const std::string& what) {
    return fmt::format("{}=python3 '{}' {{port}} {}", name, folder.file("server.py"), what);
  };
  std::vector<std::string> more{"--backends",           "epoll",    "--server",
                                server("liar", "flip"), "--server", server("mortal", "die")};
  more.insert(more.end(), kBlocks.begin(), kBlocks.end());
  more.insert(more.end(), {"--slice", "20ms"});
  const Output output = bench(small(folder.file("run"), more));
  INFO(output.err);
  CHECK(output.exit_status == 1);
  CHECK(contains(output.err, "2 of 4 rows failed"));
  const RunRecord run = read_run(folder.file("run"));
  CHECK(row(run, "epoll").error.empty());
  const Result &liar = row(run, "liar"), &mortal = row(run, "mortal");
  CHECK(contains(liar.error, "liar: "));
  CHECK(contains(liar.error, "byte"));
  CHECK(contains(mortal.error, "mortal: "));
  CHECK(contains(mortal.error, "exit status 3"));
  for (const Result* result : {&liar, &mortal}) {
    CHECK_FALSE(has_verdict(*result));
    CHECK(contains(output.out, "FAILED: " + result->error));
  }
}

// ---- the machine --------------------------------------------------------------------------------

TEST_CASE("an open loop beyond what the generator can do has no verdict", "[bench][gates]") {
  const TemporaryFolder folder;
  // A million requests a second by one CPU for both: nobody can. What is due in a slice fits into
  // what may be in flight, so that all are sent, too late. Where the tests beside this one take
  // most of the CPU, it is the backlog or they that are seen.
  std::vector<std::string> more{"--backends", "epoll,epoll:lt", "--connections",
                                "64",         "--rates",        "1M"};
  more.insert(more.end(), kBlocks.begin(), kBlocks.end());
  const Output output = bench(small(folder.file("run"), more));
  INFO(output.err << output.out);
  const RunRecord run = read_run(folder.file("run"));
  for (const Result& result : run.cells.at(0).results) {
    INFO(result.variant << ": " << result.no_verdict);
    CHECK(result.error.empty());
    const bool client = failed(result, "dropped") && dropped(result, "client") > 0;
    CHECK((client || failed(result, "keeps_up") || failed(result, "others")));
    CHECK_FALSE(result.no_verdict.empty());
    CHECK_FALSE(has_verdict(result));
    CHECK(contains(output.out, result.variant + ": no verdict possible: "));
  }
}

TEST_CASE("a CPU that the hypervisor takes away is no fault of a server", "[bench][gates]") {
  if (!python()) return;
  const TemporaryFolder folder;
  // The harness sees a /proc/stat in which, for 40 % of the time, far more is stolen than usual.
  std::ofstream(folder.file("stat.py")) << R"(
import sys, time
with open(sys.argv[1], "r+") as file:
    stolen, began = 0, time.monotonic()
    while True:
        if (time.monotonic() - began) % 0.3 > 0.18: stolen += 5
        file.seek(0)
        file.write("".join(f"cpu{cpu} 0 0 0 0 0 0 0 {stolen:012d} 0 0\n" for cpu in range(256)))
        file.flush()
        time.sleep(0.002)
)";
  const std::string in_namespace = fmt::format(
      "unshare $USERNS -m sh -c 'mount --bind \"{0}/stat\" /proc/stat && exec \"$@\"' sh",
      folder.path());
  const std::string command = fmt::format(
      "cat /proc/stat > '{0}/stat'; [ $(id -u) = 0 ] || USERNS=-r; "
      "{1} true || exit 77; "
      "python3 '{0}/stat.py' '{0}/stat' & writer=$!; "
      "{1} '{2}' bench --backends epoll --connections 2 --sizes 64 --depths 1 "
      "--slices 35 --blocks 7 --place same --seed 1 -o '{0}/run'; "
      "status=$?; kill $writer; exit $status",
      folder.path(), in_namespace, program("harness"));
  const Output output = run_program({"/bin/sh", "-c", command}, 100s);
  INFO(output.err << output.out);
  if (output.exit_status == 77) {
    echolab::test::skip("no mount namespace may be made here");
    return;
  }
  CHECK(output.exit_status == 0);
  CHECK(contains(output.out, "rounds dropped and repeated: the hypervisor took the CPU away"));
  const RunRecord run = read_run(folder.file("run"));
  for (const Result& result : run.cells.at(0).results) {
    INFO(result.variant << ": " << result.no_verdict);
    CHECK(result.error.empty());
    CHECK(dropped(result, "steal") > 0);
    CHECK(failed(result, "dropped"));
    CHECK_FALSE(has_verdict(result));
  }
}
