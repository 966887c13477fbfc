#include "backends/serve.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdio>
#include <exception>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "backends/backend.hpp"

namespace echolab {
namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;
constexpr int kUnavailable = 3;
constexpr unsigned kMaxThreads = 1024;  // loops; beyond any machine that this runs on

struct ServerOptions {
  std::string backend = "epoll";
  std::string listen = "127.0.0.1:7007";
  unsigned threads = 1;
  std::string stats_json;  // empty: none
  double grace_ms = 5000;
  bool list = false;
  bool json = false;
};

struct UsageError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

void split_address(const std::string& text, Options& options) {
  const std::size_t colon = text.rfind(':');
  const auto bad = [&] {
    throw UsageError(fmt::format(
        "--listen: '{}' is not ADDRESS:PORT, such as 127.0.0.1:7007 or [::1]:7007", text));
  };
  if (colon == text.npos) bad();
  std::string host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != host.npos) {
    bad();
  }
  const char* first = text.data() + colon + 1;
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(first, last, options.port);
  if (host.empty() || first == last || end != last || error != std::errc{}) bad();
  options.host = host;
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

class StatsFile {
 public:
  StatsFile(const ServerOptions& options, const Backend& backend)
      : options_(options), backend_(backend) {}

  // Replaces the file as a whole, so that a reader never sees half of it.
  void write(bool final) {
    if (options_.stats_json.empty()) return;
    const Stats stats = backend_.stats();
    nlohmann::ordered_json document{
        {"schema", "echolab.stats"},   {"version", 1},    {"backend", options_.backend},
        {"threads", options_.threads}, {"pid", getpid()}, {"port", backend_.port()},
        {"snapshot", snapshot_++},     {"final", final}};
    document["features"] = nlohmann::ordered_json::array();
    for (const Feature& f : stats.features) {
      document["features"].push_back(
          {{"name", f.name}, {"asked", f.asked}, {"granted", f.granted}, {"note", f.note}});
    }
    for (std::size_t i = 0; i < kCounts; ++i) {
      document["counters"][name_of(static_cast<Count>(i))] = stats.counts[i];
    }
    document["batches"] = stats.batches;

    const std::string temporary = fmt::format("{}.{}.tmp", options_.stats_json, getpid());
    std::ofstream file(temporary);
    file << document.dump(1) << '\n';
    file.close();
    if (!file || std::rename(temporary.c_str(), options_.stats_json.c_str()) != 0) {
      const int error = errno;
      std::remove(temporary.c_str());
      throw std::system_error(error, std::system_category(),
                              "cannot write the counters to " + options_.stats_json);
    }
  }

 private:
  const ServerOptions& options_;
  const Backend& backend_;
  unsigned snapshot_ = 0;  // 0: written at the start
};

void print_counters(const Stats& stats) {
  for (std::size_t i = 0; i < kCounts; ++i) {
    if (stats.counts[i] > 0) {
      fmt::print("{} {}\n", name_of(static_cast<Count>(i)), stats.counts[i]);
    }
  }
}

int run(const ServerOptions& server, Service& service) {
  Options options;
  options.threads = server.threads;
  split_address(server.listen, options);
  const Spec spec = parse_spec(server.backend);
  raise_descriptor_limit();
  signal(SIGPIPE, SIG_IGN);
  // Blocked before any thread exists, so that only sigwait takes them.
  sigset_t signals;
  sigemptyset(&signals);
  for (const int s : {SIGTERM, SIGINT, SIGUSR1}) sigaddset(&signals, s);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  const std::unique_ptr<Backend> backend = make_backend(spec, options);
  StatsFile file(server, *backend);
  file.write(false);
  for (const Feature& f : backend->stats().features) {
    if (f.asked && !f.granted) {
      fmt::print(stderr, "echolab: {} asked for {}, not granted: {}\n", server.backend, f.name,
                 f.note);
    }
  }
  fmt::print("{}\n", backend->port());
  std::fflush(stdout);

  std::exception_ptr failure;
  std::jthread thread([&, main_thread = pthread_self()] {
    try {
      backend->run(service);
    } catch (...) {
      failure = std::current_exception();
      pthread_kill(main_thread, SIGTERM);
    }
  });
  for (int signal = 0; signal != SIGTERM && signal != SIGINT;) {
    sigwait(&signals, &signal);
    if (signal != SIGUSR1) continue;
    try {
      file.write(false);
    } catch (const std::system_error& error) {
      fmt::print(stderr, "echolab: {}\n", error.what());
    }
  }
  backend->stop(std::chrono::duration_cast<Duration>(
      std::chrono::duration<double, std::milli>(server.grace_ms)));
  thread.join();
  if (failure) std::rethrow_exception(failure);
  print_counters(backend->stats());
  file.write(true);
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
  const std::map<std::string, double> units{{"ms", 1}, {"s", 1000}, {"m", 60'000}};
  app.add_option("--grace", o.grace_ms, "time to drain after SIGTERM, such as 5s or 250ms")
      ->transform(CLI::AsNumberWithUnit(units, CLI::AsNumberWithUnit::UNIT_REQUIRED, "TIME"))
      ->check(CLI::NonNegativeNumber)
      ->default_str("5s");
  app.add_flag("--list", o.list, "print the backends and why each is there");
  app.add_flag("--json", o.json, "with --list: as JSON")->needs("--list");
}

}  // namespace

int serve(int argc, char** argv, const char* name, const char* about, Service& service) {
  CLI::App app(about, name);
  ServerOptions options;
  add_server_options(app, options);
  try {
    app.parse(argc, argv);
    if (options.list) {
      print_catalogue(options.json);
      return 0;
    }
    return run(options, service);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help
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
