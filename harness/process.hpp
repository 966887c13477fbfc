// Servers as processes of their own: started on a chosen set of CPUs, watched, asked for their
// counters, stopped. No server outlives the harness: each is in a process group of its own, gets
// SIGKILL when the thread that started it ends, and is stopped by its destructor.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "harness/accounting.hpp"

namespace echolab::harness {

using Millis = std::chrono::milliseconds;
using Cpus = std::vector<int>;  // CPU numbers, ascending

Cpus allowed_cpus();                // that this thread may run on, as read back from the kernel
void pin_this_thread(const Cpus&);  // throws std::system_error
std::string cpu_list(const Cpus&);  // "0-2,5", as taskset writes it

// This thread on some CPUs; it goes back to where it came from, also when an exception ends a run.
class Pinned {
 public:
  explicit Pinned(const Cpus& cpus) : before_(allowed_cpus()) { pin_this_thread(cpus); }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
  ~Pinned();

 private:
  Cpus before_;
};

// What went wrong with a server. what() is one clear line that names the server and, where it said
// something, ends with its last line on stderr.
struct ServerError : std::runtime_error {
  enum class Kind {
    start,        // could not be started, or did not come to listen in time
    usage,        // our own server did not know the backend, or the command has no {port}
    unavailable,  // our own server says that the backend cannot run here
    died,         // ended although nobody asked it to
    stats,        // did not write its counters in time, or not as agreed
    interrupted,  // StartOptions::interrupted said so before it listened
  };
  ServerError(Kind k, const std::string& line) : std::runtime_error(line), kind(k) {}
  Kind kind;
};

struct StartOptions {
  Cpus cpus;               // all threads of the server; empty: wherever the harness may run
  unsigned threads = 1;    // own servers: loops
  Millis timeout{10'000};  // until it listens; a loaded machine may need seconds to load libraries
  std::function<bool()> interrupted;  // asked while waiting for that, if given: true gives up
};

// How a server ended, with what the kernel counted over its whole life and that of the children it
// waited for.
struct Ending {
  std::string line;           // "exit status 0", "killed by signal 9 (Killed)"
  int exit_status = 0;        // -1: ended by a signal
  int signal = 0;             // 0: exited
  bool forced = false;        // had to be killed: it did not stop within the grace period
  std::uint64_t user_ns = 0;  // getrusage(2): the split is tick based, the sum is exact
  std::uint64_t system_ns = 0;
  std::uint64_t max_rss_bytes = 0;
  std::uint64_t minor_faults = 0;
  std::uint64_t major_faults = 0;
  std::uint64_t voluntary_switches = 0;
  std::uint64_t involuntary_switches = 0;
  nlohmann::json stats;  // own servers: the counters written at exit; null if there are none
};

// One running server. Not thread-safe. The thread that starts it must live as long as the server.
class Server {
 public:
  // Our own echo-server: `program --backend SPEC --listen 127.0.0.1:0 ...`. Returns when it
  // listens. Throws ServerError; std::system_error if this process lacks something (descriptors,
  // memory).
  static Server start_own(const std::string& program, const std::string& spec, const StartOptions&);
  // Any other: a shell command in which every {port} is replaced by a free port. The command
  // replaces the shell (exec), so set variables with env(1). Returns when one of its processes
  // listens on that port, which is read from the kernel's tables: it is not connected to.
  // The command's stdout is discarded.
  static Server start_foreign(const std::string& name, const std::string& command,
                              const StartOptions&);
  // A raw control (controls.hpp): `program PORT`, with a free port. As start_foreign, without a
  // shell.
  static Server start_control(const std::string& name, const std::string& program,
                              const StartOptions&);
  Server(Server&&) noexcept;
  Server& operator=(Server&&) noexcept;
  ~Server();  // as stop(), with a short grace period

  [[nodiscard]] const std::string& name() const;
  [[nodiscard]] bool own() const;
  [[nodiscard]] pid_t pid() const;
  [[nodiscard]] std::uint16_t port() const;  // on 127.0.0.1
  [[nodiscard]] Cpus cpus() const;           // as read back from the kernel
  [[nodiscard]] Accounting& accounting();

  // Nothing while it runs. If it has ended unasked: the line for the user. Costs one system call.
  [[nodiscard]] std::optional<std::string> death();
  // Own servers: the counters up to now (schema echolab.stats), written at our request. Throws
  // ServerError (stats, died); std::logic_error for a server that is not ours.
  nlohmann::json stats(Millis timeout = Millis(2'000));
  // SIGTERM; after the grace period SIGKILL to its process group. Then nothing of it is left.
  // Returns the same Ending when called again, or when it had died before.
  Ending stop(Millis grace = Millis(5'000));
  // What it wrote to stderr last, one line without its newline; empty if nothing.
  [[nodiscard]] std::string last_stderr_line() const;

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl>);
  std::unique_ptr<Impl> impl_;
};

// A program that runs to its end: what it wrote (each stream cut at 1 MiB) and its exit status (-1:
// killed, by a signal or by us at the timeout). Throws ServerError (start) if it cannot be started.
struct Output {
  int exit_status = -1;
  bool timed_out = false;
  std::string out;
  std::string err;
};
Output run_program(const std::vector<std::string>& argv, Millis timeout);

// The path of a program in the folder of the running one.
std::string sibling_program(const std::string& name);
// What `program --list --json` says (schema echolab.catalogue). Throws ServerError (start), one
// line.
nlohmann::json catalogue(const std::string& program);

// A TCP port on 127.0.0.1 that was free a moment ago.
std::uint16_t free_port();

}  // namespace echolab::harness
