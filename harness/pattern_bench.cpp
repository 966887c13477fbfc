// pattern-bench: what the patterns cost over each backend, beside nginx and bare sends.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <ctime>
#include <exception>
#include <filesystem>
#include <random>
#include <string>

#include "harness/client_socket.hpp"
#include "harness/commands.hpp"
#include "harness/environment.hpp"
#include "harness/load.hpp"
#include "harness/output.hpp"
#include "harness/pattern_parts.hpp"
#include "harness/probe.hpp"
#include "harness/progress.hpp"
#include "harness/run_folder.hpp"
#include "harness/signals.hpp"
#include "harness/units.hpp"

namespace echolab::harness {
namespace {

using Clock = std::chrono::steady_clock;

// --quick: enough to see what is grossly different.
constexpr unsigned kQuickWrkRounds = 3;
constexpr unsigned kQuickFanoutRounds = 30;
constexpr std::chrono::seconds kQuickWatch{1};

struct Arguments {
  PatternOptions options;
  std::vector<std::string> parts{"plaintext", "fanout", "idle"};
  std::string seed, output;
  bool quick = false;
  unsigned wrk_rounds = 0, fanout_rounds = 0;  // 0: not given
};

void place_servers(PatternOptions& options, PatternRecord& run) {
  const Cpus allowed = allowed_cpus();
  const bool one = allowed.size() == 1;
  const Placement placement =
      place(one ? PlaceWish::same : PlaceWish::split, MachineProbe{}, allowed, 1);
  options.server_cpus = run.server_cpus = placement.server;
  options.client_cpus = run.client_cpus = placement.client;
  run.placement = fmt::format(
      "Servers, one thread each but for `threads`, on CPU {}, clients on CPU {}{}.",
      cpu_list(placement.server), cpu_list(placement.client), one ? " (there is no other)" : "");
}

class Run {
 public:
  Run(const Arguments& arguments, std::vector<std::string> command)
      : arguments_(arguments), options_(arguments.options) {
    record_.command = std::move(command);
    record_.quick = arguments.quick;
    record_.seed =
        arguments.seed.empty() ? std::random_device{}() : parse_seed(arguments.seed, "--seed");
    record_.connections = options_.connections;
    record_.subscribers = options_.subscribers;
    record_.started = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
    record_.environment = environment();
    place_servers(options_, record_);
  }

  // `save` is called after each part, with `partial` set.
  template <class Save>
  const PatternRecord& measure(Progress& progress, Save save) {
    const auto began = Clock::now();
    pin_this_thread(options_.client_cpus);
    PatternBench bench(options_, record_, [&](const std::string& what, double done, double total) {
      if (what == said_) return progress.update(what, done, total);
      said_ = what;
      progress.step(what, done, total);
    });
    const auto stamp = [&](bool partial) {
      record_.duration_s = std::chrono::duration<double>(Clock::now() - began).count();
      record_.partial = partial;
    };
    const auto part = [&](auto act) {
      act();
      stamp(true);
      save(record_);
    };
    try {
      if (wants("plaintext")) {
        part([&] { bench.plaintext("same"); });
        if (options_.server_cpus != options_.client_cpus) part([&] { bench.plaintext("split"); });
      }
      if (wants("fanout")) {
        for (const char* transport : {"sse", "websocket"}) part([&] { bench.fanout(transport); });
      }
      if (wants("idle")) {
        for (const std::string& backend : options_.backends) {
          for (const char* kind : {"sse", "websocket", "long_poll"}) {
            part([&] { bench.idle(backend, kind); });
          }
        }
      }
      stamp(false);
    } catch (const LoadError& error) {
      if (error.kind != LoadError::Kind::interrupted) throw;
      stamp(true);
    }
    progress.clear();
    return record_;
  }

 private:
  [[nodiscard]] bool wants(const std::string& part) const {
    const auto& parts = arguments_.parts;
    return std::find(parts.begin(), parts.end(), part) != parts.end();
  }

  const Arguments& arguments_;
  PatternOptions options_;
  PatternRecord record_;
  std::string said_;
};

int run(const Arguments& arguments, std::vector<std::string> command) {
  // Descriptors of all servers' subscribers at a time, and of one server's idle clients. The
  // servers inherit the limit.
  const auto contenders = static_cast<unsigned>(arguments.options.backends.size()) + 1;
  allow_connections(std::max(arguments.options.subscribers * contenders, arguments.options.idle));
  const std::filesystem::path wish(arguments.output);
  if (!wish.empty() && std::filesystem::exists(wish / "patterns.json")) {
    throw UsageError(
        fmt::format("{} already holds results; choose another folder with -o", wish.string()));
  }
  RunFolder folder = wish.empty() ? RunFolder::with_default_name() : RunFolder(wish);
  const OrderlySignals signals(Again::is_ignored);
  Progress progress = Progress::on_stderr();
  const auto save = [&](const PatternRecord& record) {
    folder.write("patterns.json", to_json(record).dump(1) + "\n", true);
    folder.write("table.md", table_of(record), true);
  };
  Run bench(arguments, std::move(command));
  const PatternRecord& record = bench.measure(progress, save);
  show(table_of(record));
  save(record);
  progress.say(fmt::format("results: {}", folder.path().string()));
  if (record.partial) {
    progress.say("pattern-bench: interrupted; the results are marked partial");
    return kExitInterrupted;
  }
  if (any_error(record)) {
    progress.say("pattern-bench: some rows failed; the reasons stand under the tables");
    return kExitFailed;
  }
  return kExitOk;
}

void add_options(CLI::App& app, Arguments& arguments) {
  PatternOptions& options = arguments.options;
  const CLI::Range positive(1, 1'000'000);
  app.add_option("--backends", options.backends, "backends, separated by commas")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--parts", arguments.parts, "what to measure: plaintext, fanout, idle")
      ->delimiter(',')
      ->check(CLI::IsMember({"plaintext", "fanout", "idle"}))
      ->capture_default_str();
  app.add_option("--connections", options.connections, "of wrk")
      ->check(positive)
      ->capture_default_str();
  app.add_option("--subscribers", options.subscribers, "of a fan-out")
      ->check(positive)
      ->capture_default_str();
  app.add_option("--idle", options.idle, "connections that wait")
      ->check(positive)
      ->capture_default_str();
  app.add_option("--wrk-rounds", arguments.wrk_rounds,
                 fmt::format("seconds of wrk for each server [{}; with --quick {}]",
                             options.wrk_rounds, kQuickWrkRounds))
      ->check(positive);
  app.add_option("--fanout-rounds", arguments.fanout_rounds,
                 fmt::format("messages for each server [{}; with --quick {}]",
                             options.fanout_rounds, kQuickFanoutRounds))
      ->check(positive);
  app.add_option("--seed", arguments.seed, "of orders and bytes; random unless given");
  app.add_option("-o,--output", arguments.output, "folder for the results [results/DATE-TIME]");
  app.add_flag("--quick", arguments.quick, "few slices");
}

int main(int argc, char** argv) {
  prepare_streams();
  CLI::App app("Measures what each pattern costs over each backend, beside nginx and bare sends.",
               "pattern-bench");
  Arguments arguments;
  arguments.options.backends = {"threads", "epoll", "io_uring", "libuv"};
  add_options(app, arguments);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help
    tell(fmt::format("pattern-bench: {} (see --help)\n", error.what()));
    return kExitUsage;
  }
  PatternOptions& options = arguments.options;
  if (arguments.quick) {
    options.wrk_rounds = kQuickWrkRounds;
    options.fanout_rounds = kQuickFanoutRounds;
    options.watch = kQuickWatch;
  }
  if (arguments.wrk_rounds > 0) options.wrk_rounds = arguments.wrk_rounds;
  if (arguments.fanout_rounds > 0) options.fanout_rounds = arguments.fanout_rounds;
  try {
    const int code = run(arguments, {argv, argv + argc});
    if (show("")) return code;
    tell("pattern-bench: cannot write the results to stdout\n");
    return code == kExitOk ? kExitFailed : code;
  } catch (const UsageError& error) {
    tell(fmt::format("pattern-bench: {}\n", error.what()));
    return kExitUsage;
  } catch (const std::exception& error) {
    tell(fmt::format("pattern-bench: {}\n", error.what()));
    return kExitFailed;
  }
}

}  // namespace
}  // namespace echolab::harness

int main(int argc, char** argv) {
  return echolab::harness::main(argc, argv);
}
