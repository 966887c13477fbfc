#include "backends/serve.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>
#include <span>
#include <thread>

#include "backends/backend.hpp"
#include "backends/sockets.hpp"
#include "backends/stats_file.hpp"

namespace echolab {
namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;
constexpr int kUnavailable = 3;
constexpr unsigned kMaxThreads = 1024;  // loops; beyond any machine that this runs on

constexpr int kRefusing = SIGUSR2;  // tells the main thread that the first connection is refused

constexpr Duration kLongest = std::chrono::hours(24 * 365);  // of an option; no overflow in sums

struct ServerOptions {
  std::string backend = "epoll";
  std::string listen;
  unsigned threads = 1;
  std::string stats_json;  // empty: none
  Duration grace = std::chrono::seconds(5);
  bool list = false;
  bool json = false;
};

struct UsageError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

struct Unit {
  const char* name;
  double factor;
};
// Largest first: the first that divides a value without a rest is used to print it.
constexpr Unit kTimes[] = {{"h", 3600e9}, {"m", 60e9}, {"s", 1e9}, {"ms", 1e6}, {"us", 1e3}};
constexpr Unit kSizes[] = {{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}};

std::string with_unit(double value, std::span<const Unit> units) {
  for (const Unit& unit : units) {
    const double n = value / unit.factor;
    if (value > 0 && n == std::floor(n)) return fmt::format("{:.0f}{}", n, unit.name);
  }
  return fmt::format("{:.0f}{}", value / units.back().factor, units.back().name);
}

double parse_with_unit(const char* option, const std::string& text, std::span<const Unit> units,
                       double most) {
  double number = 0;
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, number, std::chars_format::fixed);
  const std::string_view unit(end, static_cast<std::size_t>(last - end));
  for (const Unit& u : units) {
    if (error != std::errc{} || unit != u.name) continue;
    const double value = number * u.factor;
    if (value >= 0 && value <= most) return value;
  }
  std::string names;
  for (const Unit& u : units) {
    if (*u.name != '\0') names += fmt::format("{}{}", names.empty() ? "" : ", ", u.name);
  }
  throw CLI::ValidationError(
      option, fmt::format("'{}' is not a number from 0 to {} with a unit of {}", text,
                          with_unit(most, units), names));
}

// A thousand connections need a thousand descriptors; the soft limit is often 1024.
void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

void print_catalogue(bool json) {
  if (!json) {
    for (const Variant& v : catalogue()) {
      fmt::print("{:<20} {}{}\n", v.name, v.why,
                 v.unavailable.empty() ? "" : " [unavailable: " + v.unavailable + "]");
    }
    return;
  }
  nlohmann::ordered_json document{{"schema", "echolab.catalogue"}, {"version", 1}};
  document["variants"] = nlohmann::ordered_json::array();
  for (const Variant& v : catalogue()) {
    document["variants"].push_back(
        {{"name", v.name}, {"why", v.why}, {"unavailable", v.unavailable}});
  }
  fmt::print("{}\n", document.dump(2));
}

// What has been printed must have arrived: a full disk, say, is an error.
void flush_output() {
  if (std::fflush(stdout) != 0) throw_errno(errno, "cannot write to the standard output");
}

void print_counters(const Stats& stats) {
  for (std::size_t i = 0; i < kCounts; ++i) {
    if (stats.counts[i] > 0) {
      fmt::print("{} {}\n", name_of(static_cast<Count>(i)), stats.counts[i]);
    }
  }
}

void tell_refused(const Spec& spec) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  fmt::print(stderr,
             "echolab: connections are refused: the limit of {} descriptors{} is reached; raise it "
             "(ulimit -Hn, or LimitNOFILE= in a systemd unit) and start again\n",
             limit.rlim_cur, spec.model == "threads" ? ", or that of threads," : "");
}

int run(const ServerOptions& server, Program& program) {
  Options options;
  options.threads = server.threads;
  const Upstream address = parse_address("--listen", server.listen);
  options.host = address.host;
  options.port = address.port;
  const Spec spec = parse_spec(server.backend);
  raise_descriptor_limit();
  signal(SIGPIPE, SIG_IGN);
  // Blocked before any thread exists, so that only sigwait takes them.
  sigset_t signals;
  sigemptyset(&signals);
  for (const int s : {SIGTERM, SIGINT, SIGUSR1, kRefusing}) sigaddset(&signals, s);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  std::atomic<bool> refusing = false;
  options.on_refused = [&refusing, main_thread = pthread_self()] {
    if (!refusing.exchange(true)) pthread_kill(main_thread, kRefusing);
  };
  const std::unique_ptr<Backend> backend = make_backend(spec, options);
  const std::unique_ptr<Service> service = program.start(*backend);
  StatsFile file(server.stats_json, server.backend, server.threads);
  file.write(*backend, false);
  for (const Feature& f : backend->stats().features) {
    if (f.asked && !f.granted) {
      fmt::print(stderr, "echolab: {} asked for {}, not granted: {}\n", server.backend, f.name,
                 f.note);
    }
  }
  fmt::print("{}\n", backend->port());
  flush_output();

  std::exception_ptr failure;
  std::jthread thread([&, main_thread = pthread_self()] {
    try {
      backend->run(*service);
    } catch (...) {
      failure = std::current_exception();
      pthread_kill(main_thread, SIGTERM);
    }
  });
  for (int signal = 0; signal != SIGTERM && signal != SIGINT;) {
    sigwait(&signals, &signal);
    if (signal == kRefusing) tell_refused(spec);
    if (signal != SIGUSR1) continue;
    try {
      file.write(*backend, false);
    } catch (const std::system_error& error) {
      fmt::print(stderr, "echolab: {}\n", error.what());
    }
  }
  backend->stop(server.grace);
  thread.join();
  if (failure) std::rethrow_exception(failure);
  print_counters(backend->stats());
  file.write(*backend, true);
  flush_output();
  return 0;
}

void add_server_options(CLI::App& app, ServerOptions& o) {
  app.add_option("--backend", o.backend, "I/O model, see --list")->capture_default_str();
  app.add_option("--listen", o.listen, "ADDRESS:PORT; port 0 lets the kernel choose")
      ->capture_default_str();
  app.add_option("--threads", o.threads, "loops, where the model has loops")
      ->check(CLI::Range(1U, kMaxThreads))
      ->capture_default_str();
  app.add_option("--stats-json", o.stats_json, "write counters to FILE: at start, SIGUSR1 and exit")
      ->type_name("FILE");
  add_time_option(app, "--grace", o.grace, "time to drain after SIGTERM");
  app.add_flag("--list", o.list, "print the backends and why each is there");
  app.add_flag("--json", o.json, "with --list: as JSON")->needs("--list");
}

}  // namespace

void add_time_option(CLI::App& app, const char* name, Duration& value, const char* about) {
  app.add_option_function<std::string>(
         name,
         [name, &value](const std::string& text) {
           const double most = std::chrono::duration<double, std::nano>(kLongest).count();
           value = std::chrono::round<Duration>(
               std::chrono::duration<double, std::nano>(parse_with_unit(name, text, kTimes, most)));
         },
         about)
      ->type_name("TIME")
      ->default_str(with_unit(std::chrono::duration<double, std::nano>(value).count(), kTimes));
}

void add_size_option(CLI::App& app, const char* name, std::size_t& value, const char* about) {
  app.add_option_function<std::string>(
         name,
         [name, &value](const std::string& text) {
           constexpr double kMost = 1e15;  // far below where a double skips integers
           value = static_cast<std::size_t>(parse_with_unit(name, text, kSizes, kMost));
         },
         about)
      ->type_name("SIZE")
      ->default_str(with_unit(static_cast<double>(value), kSizes));
}

Upstream parse_address(const char* option, const std::string& text) {
  const std::size_t colon = text.rfind(':');
  const auto bad = [&] {
    throw UsageError(fmt::format(
        "{}: '{}' is not ADDRESS:PORT, such as 127.0.0.1:7007 or [::1]:7007", option, text));
  };
  if (colon == text.npos) bad();
  Upstream address{text.substr(0, colon), 0};
  std::string& host = address.host;
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != host.npos) {
    bad();
  }
  const char* first = text.data() + colon + 1;
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(first, last, address.port);
  if (host.empty() || first == last || end != last || error != std::errc{}) bad();
  return address;
}

int serve(int argc, char** argv, Program& program) {
  CLI::App app(program.about(), program.name());
  ServerOptions options;
  options.listen = program.default_listen();
  add_server_options(app, options);
  program.add_options(app);
  try {
    app.parse(argc, argv);
    if (options.list) {
      print_catalogue(options.json);
      flush_output();
      return 0;
    }
    return run(options, program);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {  // --help
      app.exit(error);
      if (std::cout.flush()) return 0;
      fmt::print(stderr, "{}: cannot write to the standard output\n", app.get_name());
      return kFailed;
    }
    fmt::print(stderr, "{}: {}; see --help\n", app.get_name(), error.what());
    return kUsage;
  } catch (const std::invalid_argument& error) {  // UnknownBackend, UsageError
    fmt::print(stderr, "{}: {}\n", app.get_name(), error.what());
    return kUsage;
  } catch (const BackendUnavailable& error) {
    fmt::print(stderr, "{}: {}\n", app.get_name(), error.what());
    return kUnavailable;
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}: {}\n", app.get_name(), error.what());
    return kFailed;
  }
}

}  // namespace echolab
