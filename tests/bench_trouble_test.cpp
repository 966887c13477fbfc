// `harness bench` where something is in the way: nobody reads what it says, the folder is taken,
// the disk is full, a server does not come up. What was measured must not be lost.
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>
#include <set>

#include "harness/process.hpp"
#include "harness/run_folder.hpp"
#include "tests/bench_program.hpp"
#include "tests/catch.hpp"
#include "tests/helpers.hpp"
#include "tests/sample_run.hpp"

using namespace echolab::harness;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

// A small bench by a shell, with what follows its arguments there.
Output bench_in_shell(const std::string& folder, const std::string& after) {
  std::string command = "'" + program("harness") + "' bench --backends epoll";
  for (const std::string& argument : small(folder)) command += " '" + argument + "'";
  return run_program({"/bin/bash", "-c", command + after}, 100s);
}

// No file may grow beyond this while it lives: a write fails then as on a full disk.
class FileLimit {
 public:
  explicit FileLimit(rlim_t bytes) : handler_(::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  FileLimit(const FileLimit&) = delete;
  FileLimit& operator=(const FileLimit&) = delete;
  ~FileLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    ::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

}  // namespace

TEST_CASE("a stderr that cannot be written to costs nothing", "[bench]") {
  // One that is closed, one that takes nothing, and one whose reader has gone.
  const std::string how =
      GENERATE(std::string(" 2>&-"), std::string(" 2</dev/null"), std::string(" 2> >(exec true)"));
  const TemporaryFolder folder;
  const Output output = bench_in_shell(folder.file("run"), how);
  INFO(how);
  CHECK(output.exit_status == 0);
  CHECK(contains(output.out, "epoll"));
  CHECK_FALSE(read_run(folder.file("run")).partial);
  CHECK(fs::exists(folder.file("run/table.md")));
}

TEST_CASE("a stdout that cannot be written to is exit 1, with everything in the folder",
          "[bench]") {
  const std::string how = GENERATE(std::string(" >&-"), std::string(" 1</dev/null"),
                                   std::string(" | true; exit ${PIPESTATUS[0]}"));
  const TemporaryFolder folder;
  const Output output = bench_in_shell(folder.file("run"), how);
  INFO(how << output.err);
  CHECK(output.exit_status == 1);
  CHECK(contains(output.err, "cannot write the results to stdout"));
  CHECK_FALSE(read_run(folder.file("run")).partial);
  CHECK(fs::exists(folder.file("run/table.md")));
}

TEST_CASE("a folder belongs to one run at a time", "[bench]") {
  const TemporaryFolder folder;
  const std::string path = folder.file("run");
  {
    RunFolder first(path);
    CHECK(contains(error_of([&] { const RunFolder second(path); }), "by another run"));
    const Output output = bench(small(path, {"--backends", "epoll"}));
    CHECK(output.exit_status == 1);
    CHECK(contains(output.err, "by another run; choose another folder with -o"));
    first.write_run(sample_run());
  }
  CHECK(contains(error_of([&] { const RunFolder third(path); }), "already holds a run"));
  fs::remove(path + "/run.json");  // as after a crash before the first cell was in
  CHECK(error_of([&] { const RunFolder fourth(path); }).empty());
}

TEST_CASE("a file never takes the place of a pipe or a device", "[bench]") {
  const TemporaryFolder folder;
  const std::string path = folder.file("pipe");
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  CHECK(error_of([&] { replace_file(path, "text", false); }) ==
        "cannot write " + path + ": not a regular file");
  CHECK(fs::is_fifo(path));
}

TEST_CASE("a folder in which nothing was to be written goes away", "[bench]") {
  const TemporaryFolder folder;
  { const RunFolder unused(folder.file("run")); }
  CHECK_FALSE(fs::exists(folder.file("run")));
}

TEST_CASE("default names of folders are unique within a second too", "[bench]") {
  struct InFolder {
    fs::path before = fs::current_path();
    explicit InFolder(const std::string& path) { fs::current_path(path); }
    ~InFolder() { fs::current_path(before); }
  };
  const TemporaryFolder folder;
  const InFolder here(folder.path());
  std::set<std::string> names;
  for (int i = 0; i < 5; ++i) {
    RunFolder run = RunFolder::with_default_name();
    run.write_run(sample_run());
    names.insert(run.path().string());
  }
  CHECK(names.size() == 5);
  CHECK(fs::exists(*names.begin() + "/run.json"));
}

TEST_CASE("on a full disk the last checkpoint stays and is named", "[bench]") {
  const TemporaryFolder folder;
  const std::string path = folder.file("run");
  RunFolder run_folder(path);
  RunRecord run = sample_run();
  run.cells.pop_back();
  run.partial = true;
  run_folder.write_run(run);
  const std::string checkpoint = slurp(path + "/run.json");
  {
    const FileLimit limit(checkpoint.size());
    const std::string line = error_of([&] { run_folder.write_all(sample_run()); });
    CHECK(contains(line, "cannot write " + path + "/run.json"));
    CHECK(contains(line,
                   "kept in " + path + ": table.md, run.json with 1 of 2 cells, marked partial"));
    CHECK_FALSE(contains(line, "\n"));
  }
  CHECK(slurp(path + "/run.json") == checkpoint);
  CHECK(fs::exists(path + "/table.md"));
}

TEST_CASE("a folder that gets nothing because the disk is full stays, and that is said",
          "[bench]") {
  const TemporaryFolder folder;
  {
    RunFolder run_folder(folder.file("run"));
    const FileLimit limit(0);
    CHECK(contains(error_of([&] { run_folder.write_all(sample_run()); }), "nothing is kept"));
  }
  CHECK(fs::exists(folder.file("run")));
}

TEST_CASE("an interrupt ends the wait for a server that does not listen", "[bench][server]") {
  const TemporaryFolder folder;
  std::ofstream(folder.file("silent")) << "#!/bin/sh\nexec sleep 3600\n";
  fs::permissions(folder.file("silent"), fs::perms::owner_all);
  StartOptions options;
  options.timeout = 1h;  // the test's own limit would come first
  int asked = 0;
  options.interrupted = [&] { return ++asked > 3; };
  const auto kind_of = [](const auto& start) {
    try {
      start();
    } catch (const ServerError& error) {
      CHECK(contains(error.what(), "interrupted"));
      return error.kind;
    }
    return ServerError::Kind::died;
  };
  CHECK(kind_of([&] { Server::start_foreign("x", "sleep 3600 {port}", options); }) ==
        ServerError::Kind::interrupted);
  asked = 0;
  CHECK(kind_of([&] { Server::start_own(folder.file("silent"), "epoll", options); }) ==
        ServerError::Kind::interrupted);
}

TEST_CASE("a row that cannot be is said at once, and the rest goes on", "[bench]") {
  const TemporaryFolder folder;
  const Output output =
      bench(small(folder.file("run"), {"--backends", "threads:pool=1,threads:pool=2,epoll",
                                       "--baseline", "threads:pool=1"}));
  INFO(output.err);
  CHECK(output.exit_status == 1);
  CHECK(contains(output.err, "1 of 3 rows failed"));
  CHECK(contains(output.out, "FAILED: threads:pool=1: cannot serve 2 connections at a time"));
  CHECK(contains(output.out, "no ratios: the baseline threads:pool=1 was not measured here"));
  const RunRecord run = read_run(folder.file("run"));
  REQUIRE(run.cells.size() == 1);
  CHECK(run.cells[0].results.at(0).slices.empty());
  CHECK(run.cells[0].results.at(1).error.empty());
  CHECK(run.cells[0].results.at(2).error.empty());
}
