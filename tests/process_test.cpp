// Servers as processes: started, watched, accounted, stopped. The servers here are shell and Python
// scripts that behave as each test needs; nothing depends on how fast they are.
#include "harness/process.hpp"

#include <linux/io_uring.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <numeric>
#include <thread>

#include "harness/files.hpp"
#include "tests/catch.hpp"
#include "tests/skip.hpp"

using namespace echolab::harness;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kMs = 1'000'000;  // ns

class Folder {
 public:
  Folder() {
    path_ = (fs::temp_directory_path() / "echolab test XXXXXX").native();
    if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("mkdtemp");
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() { fs::remove_all(path_); }
  // An executable shell script. Its arguments are those of echo-server; $8 is the stats file.
  [[nodiscard]] std::string script(const std::string& body) const {
    const std::string file = path_ + "/server";
    std::ofstream(file) << "#!/bin/sh\n" << body;
    ::chmod(file.c_str(), 0755);
    return file;
  }
  [[nodiscard]] std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// A server that says a port, writes counters when asked and at its end, and stops in order.
constexpr const char* kGoodServer = R"(
n=0
stats() {
  n=$((n+1))
  printf '{"schema":"echolab.stats","version":1,"snapshot":%d,"final":%s,"counters":{}}' $n $1 >"$8.new"
  mv "$8.new" "$8"
}
trap 'stats false "" "" "" "" "" "" "$8"' USR1
trap 'stats true "" "" "" "" "" "" "$8"; exit 0' TERM
echo 4567
while :; do sleep 0.01; done
)";

bool alive(pid_t pid) {
  const auto stat = read_text("/proc/" + std::to_string(pid) + "/stat");
  return stat && stat->find(") Z") == std::string::npos;
}
bool ends(pid_t pid) {
  for (int i = 0; i < 5000 && alive(pid); ++i) std::this_thread::sleep_for(1ms);
  return !alive(pid);
}

ServerError server_error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const ServerError& error) {
    return error;
  }
  FAIL("no ServerError");
  throw std::logic_error("not reached");
}

// A forked process that does something, reports with a byte, and then waits to be killed.
class Forked {
 public:
  explicit Forked(const std::function<void()>& work) {
    int ends[2];
    if (::pipe(ends) != 0) throw std::runtime_error("pipe");
    pid_ = ::fork();
    if (pid_ == 0) {
      work();
      if (::write(ends[1], "x", 1) != 1) ::_exit(1);
      for (;;) ::pause();
    }
    char byte = 0;
    ::close(ends[1]);
    ready_ = ::read(ends[0], &byte, 1) == 1;
    ::close(ends[0]);
  }
  Forked(const Forked&) = delete;
  Forked& operator=(const Forked&) = delete;
  ~Forked() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] bool ready() const { return ready_; }

 private:
  pid_t pid_;
  bool ready_ = false;
};

void start_idle_thread() {
  pthread_t thread{};
  pthread_create(
      &thread, nullptr,
      [](void*) -> void* {
        for (;;) ::pause();
      },
      nullptr);
}

// What a forked process has besides the threads that it starts: one, and under ThreadSanitizer a
// helper, from the first thread on.
unsigned plain_threads() {
  const Forked process([] { start_idle_thread(); });
  return Accounting(process.pid()).usage().threads - 1;
}

std::uint64_t thread_cpu_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1000 * kMs +
         static_cast<std::uint64_t>(now.tv_nsec);
}
void burn(std::uint64_t ns) {
  const std::uint64_t end = thread_cpu_ns() + ns;
  while (thread_cpu_ns() < end) continue;
}

// The first figure of schedstat, over the living threads.
std::uint64_t schedstat_ns(pid_t pid) {
  std::uint64_t sum = 0;
  for (const auto& thread : fs::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
    std::uint64_t ns = 0;
    std::ifstream(thread.path() / "schedstat") >> ns;
    sum += ns;
  }
  return sum;
}

const char* const kPythonServer =
    "python3 -c 'import socket,sys,time\n"
    "s=socket.create_server((\"127.0.0.1\",int(sys.argv[1])))\n"
    "time.sleep(600)' {port}";

}  // namespace

TEST_CASE("a program that ends: output, errors and exit status") {
  const Output output = run_program({"/bin/sh", "-c", "echo out; echo err >&2; exit 7"}, 10s);
  CHECK(output.exit_status == 7);
  CHECK(output.out == "out\n");
  CHECK(output.err == "err\n");
  CHECK_FALSE(output.timed_out);

  const Output late = run_program({"/bin/sh", "-c", "sleep 600"}, 50ms);
  CHECK(late.timed_out);
  CHECK(late.exit_status == -1);

  const Output big = run_program({"/bin/sh", "-c", "head -c 3000000 /dev/zero"}, 10s);
  CHECK(big.exit_status == 0);
  CHECK(big.out.size() == 1024 * 1024);

  const ServerError error = server_error_of([] { run_program({"/nonexistent/program"}, 1s); });
  CHECK(error.kind == ServerError::Kind::start);
  CHECK(std::string(error.what()).find("No such file") != std::string::npos);
}

TEST_CASE("our own server: port, CPUs, counters, orderly end") {
  const Folder folder;
  StartOptions options;
  options.cpus = {allowed_cpus().back()};
  Server server = Server::start_own(folder.script(kGoodServer), "epoll:lt", options);
  CHECK(server.name() == "epoll:lt");
  CHECK(server.own());
  CHECK(server.port() == 4567);
  CHECK(server.cpus() == options.cpus);
  CHECK(::getpgid(server.pid()) == server.pid());
  CHECK_FALSE(server.death());
  CHECK(server.stats().at("snapshot") == 1);
  CHECK(server.stats().at("snapshot") == 2);

  const pid_t pid = server.pid();
  const Ending ending = server.stop();
  CHECK(ending.exit_status == 0);
  CHECK(ending.line == "exit status 0");
  CHECK_FALSE(ending.forced);
  CHECK(ending.stats.at("final") == true);
  CHECK(ending.max_rss_bytes > 0);
  CHECK_FALSE(alive(pid));
  CHECK_FALSE(server.death());
  CHECK(server.stop().line == ending.line);
}

TEST_CASE("our own server gets the arguments that echo-server understands") {
  const Folder folder;
  const std::string program =
      folder.script("printf '%s|' \"$@\" >\"" + folder.file("arguments") + "\"\n" + kGoodServer);
  StartOptions options;
  options.threads = 3;
  const Server server = Server::start_own(program, "threads:pool=4", options);
  const std::string arguments = read_text(folder.file("arguments")).value_or("");
  CHECK(arguments.starts_with(
      "--backend|threads:pool=4|--listen|127.0.0.1:0|--threads|3|--stats-json|/"));
}

TEST_CASE("a server that ends unasked is named with its last words") {
  const Folder folder;
  const std::string program = folder.script(
      "echo 1\necho 'first' >&2\necho 'out of luck' >&2\n"
      "read go <\"" +
      folder.file("go") + "\"\nexit 9\n");
  REQUIRE(::mkfifo(folder.file("go").c_str(), 0600) == 0);
  Server server = Server::start_own(program, "epoll", {});
  CHECK_FALSE(server.death());
  std::ofstream(folder.file("go")) << "now\n";
  for (int i = 0; i < 5000 && !server.death(); ++i) std::this_thread::sleep_for(1ms);
  CHECK(server.death() == "epoll: the server ended: exit status 9: out of luck");
  const ServerError error = server_error_of([&] { server.stats(); });
  CHECK(error.kind == ServerError::Kind::died);
  CHECK(server.stop().exit_status == 9);
  CHECK(server.last_stderr_line() == "out of luck");

  Server killed = Server::start_own(folder.script(kGoodServer), "epoll", {});
  ::kill(killed.pid(), SIGSEGV);
  for (int i = 0; i < 5000 && !killed.death(); ++i) std::this_thread::sleep_for(1ms);
  CHECK(killed.death() == "epoll: the server ended: killed by signal 11 (Segmentation fault)");
}

TEST_CASE("a server that does not come up says why, by kind") {
  const Folder folder;
  const auto start = [&](const std::string& body, Millis timeout) {
    const std::string program = folder.script(body);
    StartOptions options;
    options.timeout = timeout;
    return server_error_of([&] { Server::start_own(program, "io_uring", options); });
  };
  SECTION("unavailable") {
    const ServerError error = start("echo 'no ring here' >&2; exit 3\n", 10s);
    CHECK(error.kind == ServerError::Kind::unavailable);
    CHECK(std::string(error.what()) == "io_uring: no ring here");
  }
  SECTION("unknown") {
    CHECK(start("echo 'unknown backend' >&2; exit 2\n", 10s).kind == ServerError::Kind::usage);
  }
  SECTION("failed") {
    const ServerError error = start("echo 'port in use' >&2; exit 1\n", 10s);
    CHECK(error.kind == ServerError::Kind::start);
    CHECK(std::string(error.what()) ==
          "io_uring: the server ended before it listened: exit status 1: port in use");
  }
  SECTION("a first line that is no port") {
    const ServerError error = start("echo 'hello'; sleep 600\n", 10s);
    CHECK(error.kind == ServerError::Kind::start);
    CHECK(std::string(error.what()) == "io_uring: the server's first line is not a port: hello");
  }
  SECTION("silent") {
    const ServerError error = start("sleep 600\n", 50ms);
    CHECK(error.kind == ServerError::Kind::start);
    CHECK(std::string(error.what()) == "io_uring: the server did not say its port within 50 ms");
  }
  SECTION("not there") {
    const ServerError error =
        server_error_of([&] { Server::start_own(folder.file("nothing"), "epoll", {}); });
    CHECK(error.kind == ServerError::Kind::start);
    CHECK(std::string(error.what()).find("No such file") != std::string::npos);
  }
  SECTION("not on these CPUs") {
    StartOptions options;
    options.cpus = {8000};
    const std::string program = folder.script(kGoodServer);
    const ServerError error =
        server_error_of([&] { Server::start_own(program, "epoll", options); });
    CHECK(std::string(error.what()).find("cannot run on CPUs 8000") != std::string::npos);
  }
}

TEST_CASE("counters that do not come, or are not as agreed, are an error") {
  const Folder folder;
  Server deaf = Server::start_own(
      folder.script("trap '' USR1\necho 1\nwhile :; do sleep 0.01; done\n"), "epoll", {});
  CHECK(server_error_of([&] { deaf.stats(50ms); }).kind == ServerError::Kind::stats);

  Server newer = Server::start_own(
      folder.script("echo '{\"schema\":\"echolab.stats\",\"version\":2,\"snapshot\":1}' >\"$8\"\n"
                    "trap '' USR1\necho 1\nwhile :; do sleep 0.01; done\n"),
      "epoll", {});
  CHECK(server_error_of([&] { newer.stats(50ms); }).kind == ServerError::Kind::stats);
}

TEST_CASE("a server that does not stop in time is killed") {
  const Folder folder;
  Server server = Server::start_own(
      folder.script("trap '' TERM\necho 1\nwhile :; do sleep 0.01; done\n"), "epoll", {});
  const Ending ending = server.stop(20ms);
  CHECK(ending.forced);
  CHECK(ending.signal == SIGKILL);
  CHECK(ending.exit_status == -1);
  CHECK(ending.stats.is_null());
}

TEST_CASE("a talkative server does not block, and its last words are kept") {
  const Folder folder;
  Server server = Server::start_own(
      folder.script("echo 1\ni=0\nwhile [ $i -lt 3000 ]; do i=$((i+1)); echo \"$i "
                    "0123456789012345678901234567890123456789012345678901234567890123456789\"; "
                    "echo \"line $i\" >&2; done\nexit 4\n"),
      "epoll", {});
  for (int i = 0; i < 20000 && !server.death(); ++i) std::this_thread::sleep_for(1ms);
  CHECK(server.death() == "epoll: the server ended: exit status 4: line 3000");
}

TEST_CASE("no server outlives a harness that ends without a word") {
  const Folder folder;
  const std::string program = folder.script(kGoodServer);
  int ends_of_pipe[2];
  REQUIRE(::pipe(ends_of_pipe) == 0);
  const pid_t harness = ::fork();
  if (harness == 0) {
    const Server server = Server::start_own(program, "epoll", {});
    const pid_t pid = server.pid();
    if (::write(ends_of_pipe[1], &pid, sizeof pid) != sizeof pid) ::_exit(1);
    ::_exit(0);
  }
  pid_t server = 0;
  REQUIRE(::read(ends_of_pipe[0], &server, sizeof server) == sizeof server);
  ::close(ends_of_pipe[0]);
  ::close(ends_of_pipe[1]);
  ::waitpid(harness, nullptr, 0);
  CHECK(ends(server));
}

TEST_CASE("a server that is not ours, by its command") {
  Server server = Server::start_foreign("python", kPythonServer, {});
  CHECK_FALSE(server.own());
  CHECK(server.port() > 0);
  CHECK(server.accounting().processes() == std::vector<pid_t>{server.pid()});
  CHECK(server.accounting().cpu_ns() > 0);
  CHECK_THROWS_AS(server.stats(), std::logic_error);
  const Ending ending = server.stop();
  CHECK(ending.signal == SIGTERM);
  CHECK(ending.stats.is_null());
}

TEST_CASE("descendants of a server are found, accounted and stopped") {
  // The command's first process waits; a child in a session of its own, out of reach of the process
  // group, listens and has used at least 50 ms of CPU time.
  Server server =
      Server::start_foreign("family",
                            "python3 -c 'import os,socket,sys,time\n"
                            "if os.fork() == 0:\n"
                            "    os.setsid()\n"
                            "    while time.process_time() < 0.05: pass\n"
                            "    s=socket.create_server((\"127.0.0.1\",int(sys.argv[1])))\n"
                            "    time.sleep(600)\n"
                            "os.wait()' {port}",
                            {});
  Accounting& accounting = server.accounting();
  const std::vector<pid_t> family = accounting.processes();
  REQUIRE(family.size() == 2);
  const pid_t child = family[0] == server.pid() ? family[1] : family[0];
  CHECK(accounting.cpu_ns() >= 50 * kMs);
  CHECK(accounting.usage().processes == 2);
  CHECK(accounting.descriptors().sockets == 1);

  const std::uint64_t before = accounting.cpu_ns();
  server.stop(100ms);
  CHECK(ends(child));
  CHECK(accounting.cpu_ns() >= before);
}

TEST_CASE("commands that cannot be measured are refused") {
  CHECK(server_error_of([] { Server::start_foreign("x", "sleep 600", {}); }).kind ==
        ServerError::Kind::usage);
  StartOptions options;
  options.timeout = 50ms;
  const ServerError silent =
      server_error_of([&] { Server::start_foreign("x", "env PORT={port} sleep 600", options); });
  CHECK(silent.kind == ServerError::Kind::start);
  CHECK(std::string(silent.what()).find("did not listen on port") != std::string::npos);
  const ServerError missing =
      server_error_of([] { Server::start_foreign("x", "/nonexistent/server {port}", {}); });
  CHECK(missing.kind == ServerError::Kind::start);
  CHECK(std::string(missing.what()).find("exit status 127") != std::string::npos);
}

TEST_CASE("the process CPU clock counts ended threads, and agrees with schedstat on living ones") {
  const Forked simple([] { burn(100 * kMs); });
  REQUIRE(simple.ready());
  Accounting living(simple.pid());
  const std::uint64_t by_clock = living.cpu_ns();
  const std::uint64_t by_schedstat = schedstat_ns(simple.pid());
  CHECK(by_clock >= 100 * kMs);
  CHECK(by_clock <= by_schedstat + kMs);  // read one after the other
  CHECK(by_schedstat <= by_clock + kMs);

  const Forked threaded([] {
    pthread_t thread{};
    pthread_create(
        &thread, nullptr,
        [](void*) -> void* {
          burn(100 * kMs);
          return nullptr;
        },
        nullptr);
    pthread_join(thread, nullptr);
  });
  REQUIRE(threaded.ready());
  Accounting ended(threaded.pid());
  CHECK(ended.cpu_ns() >= 100 * kMs);
  CHECK(ended.cpu_ns() - schedstat_ns(threaded.pid()) >= 90 * kMs);
  const Usage usage = ended.usage();
  // USER_HZ steps, rounded down twice.
  CHECK(usage.user_ns + usage.system_ns <= usage.cpu_ns);
  CHECK(usage.user_ns + usage.system_ns + 25 * kMs >= usage.cpu_ns);
}

TEST_CASE("the process CPU clock counts io_uring's kernel threads, which are also told apart") {
  const Forked polling([] {
    io_uring_params params{};
    params.flags = IORING_SETUP_SQPOLL;
    params.sq_thread_idle = 60'000;  // ms: spins as long as the test may take
    static long ring = ::syscall(SYS_io_uring_setup, 4, &params);
    if (ring < 0) ::_exit(1);
    // The kernel thread starts asleep; once woken it spins for the idle time. A wake-up that comes
    // before it sleeps is lost, so they are repeated.
    pthread_t waker{};
    pthread_create(
        &waker, nullptr,
        [](void*) -> void* {
          for (;;) {
            ::syscall(SYS_io_uring_enter, ring, 0, 0, IORING_ENTER_SQ_WAKEUP, nullptr, 0);
            ::usleep(1000);
          }
        },
        nullptr);
  });
  if (!polling.ready()) {
    echolab::test::skip("io_uring with SQPOLL is not available here");
    return;
  }
  Accounting accounting(polling.pid());
  Usage usage = accounting.usage();
  for (int i = 0; i < 10'000 && usage.worker_ns < 50 * kMs; ++i) {
    std::this_thread::sleep_for(1ms);
    usage = accounting.usage();
  }
  CHECK(usage.worker_ns >= 50 * kMs);
  CHECK(usage.cpu_ns >= usage.worker_ns);
  CHECK(usage.workers == 1);
  CHECK(usage.threads == plain_threads() + 1);
  CHECK(accounting.descriptors().io_uring == 1);
}

TEST_CASE("usage: switches, memory, threads and descriptor kinds") {
  const Forked process([] {
    static const std::vector<char> kept(32 * 1024 * 1024, 'x');
    for (int i = 0; i < 20; ++i) ::usleep(1000);
    for (int i = 0; i < 3; ++i) start_idle_thread();
    for (int i = 0; i < 2; ++i) ::epoll_create1(0);
    ::eventfd(0, 0);
  });
  REQUIRE(process.ready());
  Accounting accounting(process.pid());
  const Usage usage = accounting.usage();
  CHECK(usage.processes == 1);
  CHECK(usage.threads == plain_threads() + 3);
  CHECK(usage.workers == 0);
  CHECK(usage.voluntary_switches >= 20);
  CHECK(usage.minor_faults > 1000);
  CHECK(usage.rss_bytes > 32 * 1024 * 1024);
  const DescriptorKinds kinds = accounting.descriptors();
  CHECK(kinds.eventpoll == 2);
  CHECK(kinds.eventfd == 1);
  CHECK(kinds.complete);
  const std::vector<std::string> libraries = accounting.libraries();
  CHECK(std::find(libraries.begin(), libraries.end(), "libc.so.6") != libraries.end());
}

TEST_CASE("CPU sets") {
  CHECK(cpu_list({}).empty());
  CHECK(cpu_list({3}) == "3");
  CHECK(cpu_list({0, 1, 2, 5, 7, 8}) == "0-2,5,7-8");
  const Cpus before = allowed_cpus();
  REQUIRE_FALSE(before.empty());
  pin_this_thread({before[0]});
  CHECK(allowed_cpus() == Cpus{before[0]});
  pin_this_thread(before);
  CHECK(allowed_cpus() == before);
  CHECK_THROWS_AS(pin_this_thread({}), std::system_error);
}

TEST_CASE("the catalogue is refused when it is not as agreed") {
  const Folder folder;
  CHECK(
      catalogue(folder.script("echo '{\"schema\":\"echolab.catalogue\",\"version\":1,\"variants\":"
                              "[{\"name\":\"a\",\"why\":\"b\",\"unavailable\":\"\"}]}'\n"))
          .at("variants")
          .size() == 1);
  CHECK_THROWS_AS(catalogue(folder.script("echo hello\n")), ServerError);
  CHECK_THROWS_AS(catalogue(folder.script("exit 1\n")), ServerError);
  CHECK_THROWS_AS(
      catalogue(folder.script("echo '{\"schema\":\"echolab.catalogue\",\"version\":1,\"variants\":"
                              "[{\"name\":\"a\"}]}'\n")),
      ServerError);
  CHECK_THROWS_AS(catalogue(folder.file("nothing")), ServerError);
}
