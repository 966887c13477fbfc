// What every server program has around its service: arguments, signals, limits, counters. It turns
// a Service into a process with the project's exit codes.
#pragma once

#include <memory>
#include <string>

#include "backends/session.hpp"

namespace CLI {
class App;
}

namespace echolab {

class Backend;

// One server program: what it is called and what it serves.
class Program {
 public:
  Program() = default;
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  virtual ~Program() = default;

  [[nodiscard]] virtual const char* name() const = 0;
  [[nodiscard]] virtual const char* about() const = 0;           // one line
  [[nodiscard]] virtual const char* default_listen() const = 0;  // ADDRESS:PORT
  // Options of its own, beside those of every server.
  virtual void add_options(CLI::App&) {}
  // Called once, when the options are known and the port is bound. The service is destroyed before
  // the backend, so that it may post as long as it lives. May throw: std::invalid_argument is a
  // usage error, anything else a failure.
  virtual std::unique_ptr<Service> start(Backend&) = 0;
};

// Parses the arguments (--help lists them) and serves until SIGTERM or SIGINT has drained. Prints
// the bound port as the first line of stdout and the counters at the end. With --stats-json the
// counters are also written to a file (schema "echolab.stats", results/README.md) at the start, on
// each SIGUSR1 and at the end. Returns the exit code: 0 served, 1 failed, 2 usage, 3 backend
// unavailable here.
int serve(int argc, char** argv, Program& program);

// Options that come with a unit, which must be given: 250us, 5ms, 1.5s, 2m, 1h; bytes as 512,
// 64KiB, 1MiB, 2GiB. The value given is the default.
void add_time_option(CLI::App&, const char* name, Duration& value, const char* about);
void add_size_option(CLI::App&, const char* name, std::size_t& value, const char* about);
// ADDRESS:PORT, such as 127.0.0.1:7007 or [::1]:7007. Throws std::invalid_argument, which names the
// option.
Upstream parse_address(const char* option, const std::string& text);

}  // namespace echolab
