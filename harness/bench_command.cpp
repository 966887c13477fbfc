// `harness bench`: plans a matrix, runs it, prints the table and fills a run folder.
#include <fmt/format.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <random>
#include <string>

#include "harness/bench.hpp"
#include "harness/client_socket.hpp"
#include "harness/commands.hpp"
#include "harness/controls.hpp"
#include "harness/files.hpp"
#include "harness/gbench.hpp"
#include "harness/output.hpp"
#include "harness/process.hpp"
#include "harness/run_folder.hpp"
#include "harness/signals.hpp"
#include "harness/sweep.hpp"
#include "harness/table.hpp"
#include "harness/units.hpp"

namespace echolab::harness {
namespace {

// --quick: enough slices to see what is grossly different, done in well under 40 s.
constexpr unsigned kQuickSlices = 25;
constexpr unsigned kQuickWarmUp = 5;
constexpr std::size_t kQuickSize = 64;  // bytes

// --sweep: enough for a p99 at 10 000 requests/s; an odd number of blocks, as most of them decide.
constexpr unsigned kSweepSlices = 100;
constexpr unsigned kSweepBlocks = 5;
constexpr unsigned kQuickSweepSlices = 50;
constexpr unsigned kSweepConnections = 64;
constexpr std::size_t kSweepSize = 64;  // bytes

// A cell whose intervals are too wide may take so many times the blocks.
constexpr unsigned kMoreBlocks = 3;

// As typed; empty where not given.
struct BenchArguments {
  std::vector<std::string> backends, connections, sizes, depths, rates, servers;
  std::string baseline, slices, slice, blocks, cap, threads, seed, filter, output, slo;
  std::string place = "auto", exported;
  bool dry_run = false, quick = false, sweep = false;
};

unsigned small(const std::string& text, const char* what) {
  const std::uint64_t value = parse_count(text, what);
  if (value > UINT32_MAX) throw UsageError(fmt::format("{} '{}': too large", what, text));
  return static_cast<unsigned>(value);
}

// Sets what differs in a sweep, before what is typed.
void set_up_sweep(const BenchArguments& typed, Plan& plan) {
  if (!typed.sweep) throw UsageError("--slo needs --sweep");
  if (typed.slo.empty()) throw UsageError("--sweep needs --slo, such as --slo 'p99<1ms'");
  if (!typed.rates.empty() || !typed.depths.empty()) {
    throw UsageError("--sweep offers rates of its own, in open loop: leave out --rates, --depths");
  }
  plan.sweep = parse_slo(typed.slo);
  plan.rates.clear();
  plan.slices = typed.quick ? kQuickSweepSlices : kSweepSlices;
  plan.blocks = kSweepBlocks;
  plan.connections = {kSweepConnections};
  plan.sizes = {kSweepSize};
}

Plan make_plan(const BenchArguments& typed) {
  Plan plan;
  plan.quick = typed.quick;
  if (typed.quick) {
    plan.slices = kQuickSlices;
    plan.warm_up = kQuickWarmUp;
    plan.sizes = {kQuickSize};
  }
  if (typed.sweep || !typed.slo.empty()) set_up_sweep(typed, plan);
  if (!typed.connections.empty()) plan.connections.clear();
  for (const auto& text : typed.connections)
    plan.connections.push_back(small(text, "--connections"));
  if (!typed.sizes.empty()) plan.sizes.clear();
  for (const auto& text : typed.sizes) plan.sizes.push_back(parse_size(text, "--sizes"));
  if (!typed.depths.empty()) plan.depths.clear();
  for (const auto& text : typed.depths) plan.depths.push_back(small(text, "--depths"));
  if (!typed.rates.empty()) plan.rates.clear();
  for (const auto& text : typed.rates) {
    if (text.ends_with('%')) {
      plan.shares.push_back(parse_rate(text.substr(0, text.size() - 1), "--rates") / 100);
    } else {
      plan.rates.push_back(text == "none" ? 0 : parse_rate(text, "--rates"));
    }
  }
  if (!typed.slices.empty()) plan.slices = small(typed.slices, "--slices");
  if (!typed.slice.empty()) plan.slice = parse_duration(typed.slice, "--slice");
  if (!typed.threads.empty()) plan.threads = small(typed.threads, "--threads");
  plan.filter = typed.filter;

  std::vector<std::string> backends = typed.backends.empty() ? default_backends() : typed.backends;
  if (backends == std::vector<std::string>{"none"}) backends.clear();
  for (const std::string& name : backends) plan.contenders.push_back({name, ""});
  plan.few_controls = typed.backends.empty() && !typed.sweep;
  if (plan.few_controls) {
    for (const Control& control : controls()) plan.contenders.push_back({control.name, ""});
  }
  for (const std::string& text : typed.servers) plan.contenders.push_back(parse_server(text));

  const bool has_default = std::any_of(plan.contenders.begin(), plan.contenders.end(),
                                       [&](const Contender& c) { return c.name == plan.baseline; });
  if (!typed.baseline.empty()) {
    plan.baseline = typed.baseline;
  } else if (!has_default && !plan.contenders.empty()) {
    plan.baseline = plan.contenders.front().name;
  }
  // As many blocks as a verdict needs among all these comparisons, and no fewer than the default.
  const auto rivals =
      std::count_if(plan.contenders.begin(), plan.contenders.end(),
                    [&](const Contender& c) { return c.name != plan.baseline && !c.control(); });
  if (typed.quick) {
    plan.blocks = 1;
  } else if (rivals > 0 && !plan.sweep) {
    const std::size_t needed = blocks_needed(static_cast<std::size_t>(rivals));
    plan.blocks = std::max(plan.blocks, static_cast<unsigned>(needed));
  }
  plan.most_blocks = plan.blocks > 1 ? std::min(plan.blocks * kMoreBlocks, kMaxBlocks) : 1;
  if (!typed.blocks.empty()) {
    plan.blocks = plan.most_blocks = small(typed.blocks, "--blocks");
  }
  if (!typed.cap.empty()) plan.cap = parse_duration(typed.cap, "--cap");
  plan.slices = std::max(plan.slices, plan.blocks);  // each block has one at least
  if (!plan.sweep) plan.add_copy();  // a sweep compares with the limit, not with a baseline
  return plan;
}

// The client holds the connections to all servers of a cell, so the limit is raised as far as it
// goes; the servers inherit it.
void require_descriptors(std::size_t needed) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  if (limit.rlim_max != RLIM_INFINITY && needed > limit.rlim_max) {
    throw UsageError(fmt::format(
        "the plan needs {} descriptors (connections x servers) and the hard limit is {}: use fewer "
        "--connections or --backends, or raise it with 'ulimit -Hn {}' as root (for good: nofile "
        "in /etc/security/limits.conf)",
        needed, limit.rlim_max, needed));
  }
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// What the kernel cannot give is known before anything is started.
void require_connections(const std::vector<Cell>& cells) {
  require_descriptors(descriptors_needed(cells));
  try {
    for (const Cell& cell : cells) require_local_ports(cell.shape.connections);
  } catch (const LoadError& error) {
    throw UsageError(error.what());
  }
}

std::vector<std::string> own_command_line() {
  std::vector<std::string> out;
  std::string word;
  for (const char c : read_text("/proc/self/cmdline").value_or("")) {
    if (c != '\0') {
      word += c;
    } else {
      out.push_back(std::exchange(word, {}));
    }
  }
  return out;
}

void print_plan(const BenchOptions& options, const std::vector<Cell>& cells,
                const BenchArguments& typed, const std::filesystem::path& folder) {
  const Plan& plan = options.plan;
  std::size_t rows = 0;
  for (const Cell& cell : cells) rows += cell.contenders.size();
  fmt::print(
      "{} cells, {} rows, {} slices of {} each in {} block{}; about {}{}{}{}\n", cells.size(), rows,
      plan.slices, format_duration(plan.slice), plan.blocks, plan.blocks == 1 ? "" : "s",
      format_duration(estimated_time(plan, cells)), plan.sweep ? " a step" : "",
      plan.cap > plan.cap.zero() ? fmt::format(", cut off after {}", format_duration(plan.cap))
                                 : "",
      plan.quick ? "; quick: numbers, never a verdict" : "");
  fmt::print("baseline {}, {} thread{} a server, placement {}, {} descriptors, output in {}\n",
             plan.baseline, plan.threads, plan.threads == 1 ? "" : "s", typed.place,
             descriptors_needed(cells), folder.string());
  for (const VariantRecord& v : options.variants) {
    if (!v.unavailable.empty()) fmt::print("{}: not available here: {}\n", v.name, v.unavailable);
  }
  if (plan.sweep) {
    std::vector<std::string> steps;
    for (const double share : sweep_shares(plan.quick)) {
      steps.push_back(fmt::format("{:.0f} %", share * 100));
    }
    fmt::print(
        "sweep for {}: steps at {} of the highest closed-loop peak{}; at most {}\n",
        slo_text(plan.sweep->percentile, static_cast<std::uint64_t>(plan.sweep->limit.count())),
        fmt::join(steps, ", "), plan.quick ? "" : ", then between met and missed",
        format_duration(sweep_time(plan, cells.size())));
  }
  for (const Cell& cell : cells) {
    std::vector<std::string> names;
    for (const std::size_t i : cell.contenders) {
      if (options.variants[i].unavailable.empty()) names.push_back(plan.contenders[i].name);
    }
    fmt::print("  {}: {}\n",
               plan.sweep ? fmt::format("c{}/s{}", cell.shape.connections, cell.shape.size)
                          : cell.shape.name(),
               fmt::join(names, ", "));
    for (const std::size_t i : cell.contenders) {
      const std::string why = impossible(plan.contenders[i], cell.shape);
      if (!why.empty()) fmt::print("    {}\n", why);
    }
  }
}

int conclude(const RunRecord& run, const RunFolder& folder, Progress& progress) {
  std::size_t rows = 0, failed = 0;
  for (const CellRecord& cell : run.cells) {
    for (const Result& result : cell.results) {
      ++rows;
      if (!result.error.empty()) ++failed;
    }
  }
  progress.say(fmt::format("results: {}", folder.path().string()));
  if (run.partial && !Load::interrupted()) {
    progress.say("harness: the time was up before the sweep had ended; the run is marked partial");
  } else if (run.partial) {
    progress.say("harness: interrupted; the run is marked partial");
    return kExitInterrupted;
  }
  if (failed > 0) {
    progress.say(fmt::format("harness: {} of {} rows failed; the reasons stand under their tables",
                             failed, rows));
    return kExitFailed;
  }
  if (rows == 0) {
    progress.say("harness: nothing was measured: none of the backends is available here");
    return kExitUnavailable;
  }
  return kExitOk;
}

int run_bench(const BenchArguments& typed) {
  BenchOptions options;
  std::vector<Cell> cells;
  try {
    options.plan = make_plan(typed);
    cells = options.plan.expand();
  } catch (const std::invalid_argument& error) {
    throw UsageError(error.what());
  }
  require_connections(cells);
  options.place = parse_place(typed.place);
  options.seed = typed.seed.empty() ? std::random_device{}() : parse_seed(typed.seed, "--seed");
  options.command = own_command_line();
  options.program = sibling_program("echo-server");
  options.variants = resolve_variants(options.plan, options.program);
  if (typed.dry_run) {
    print_plan(options, cells, typed,
               typed.output.empty() ? default_run_folder() : std::filesystem::path(typed.output));
    return kExitOk;
  }

  RunFolder folder =
      typed.output.empty() ? RunFolder::with_default_name() : RunFolder(typed.output);
  const OrderlySignals signals(Again::is_ignored);
  Progress progress = Progress::on_stderr();
  bool saved = true;  // what a checkpoint cannot write, the end cannot either: said once
  const RunRecord run = run_bench(options, progress, [&](const RunRecord& so_far) {
    if (!saved) return;
    try {
      folder.write_run(so_far);
    } catch (const FolderError& error) {
      saved = false;
      progress.say(fmt::format("harness: {}; going on, make room before the end", error.what()));
    }
  });
  show(terminal_table(run));  // first: it is there even if the disk is full; main looks at stdout
  folder.write_all(run);
  if (!typed.exported.empty()) {
    constexpr auto kReplace = nlohmann::json::error_handler_t::replace;
    folder.write("gbench.json", to_gbench(run).dump(1, ' ', false, kReplace) + "\n", false);
  }
  return conclude(run, folder, progress);
}

}  // namespace

void add_bench(CLI::App& app, Chosen& chosen) {
  const auto typed = std::make_shared<BenchArguments>();
  BenchArguments& t = *typed;
  CLI::App* bench = app.add_subcommand(
      "bench", "Measure a matrix of servers, interleaved, and compare them with a baseline.");
  bench
      ->add_option("--backends", t.backends,
                   fmt::format("backends and raw controls, separated by commas, or none [{}, and "
                               "raw-epoll,raw-io_uring at 64 B, depth 1]",
                               fmt::join(default_backends(), ",")))
      ->delimiter(',');
  bench->add_option("--server", t.servers,
                    "another server in the same matrix: NAME='COMMAND {port}' (repeatable)");
  bench->add_option("--baseline", t.baseline, "what ratios refer to [epoll, else the first]");
  bench->add_option("--connections", t.connections, "connections per server [1,64,1000]")
      ->delimiter(',');
  bench->add_option("--sizes", t.sizes, "bytes per request, such as 64,4KiB [64,4KiB]")
      ->delimiter(',');
  bench->add_option("--depths", t.depths, "requests in flight per connection [1,16]")
      ->delimiter(',');
  bench
      ->add_option(
          "--rates", t.rates,
          "requests/s offered over all connections, such as 20k, or 25% of the slowest server's "
          "peak, measured first; 0 or none is the closed loop [0]")
      ->delimiter(',');
  bench->add_option("--slices", t.slices, "slices per server and cell [104; with --quick 25]");
  bench->add_option(
      "--blocks", t.blocks,
      "fresh starts of every server, which share the slices [8 or what a verdict needs, and up "
      "to 3 times that until the intervals are narrow; with --quick 1]");
  bench->add_option(
      "--cap", t.cap,
      "the run ends then, with what it has [chosen by the plan; 3min for the default]");
  bench->add_option("--slice", t.slice, "length of a slice [10ms]");
  bench->add_option("--threads", t.threads, "loops per server, where the model has loops [1]");
  bench->add_option("--place", t.place, "CPUs of servers and client")
      ->check(CLI::IsMember({"auto", "same", "split"}))
      ->capture_default_str();
  bench->add_option("--seed", t.seed, "of orders, bytes and arrivals; random unless given");
  bench->add_option("--filter", t.filter,
                    "only rows whose name (\"io_uring/c64/s4096/d1\") matches this regular "
                    "expression; the baseline stays in their cells");
  bench->add_flag(
      "--sweep", t.sweep,
      "find the highest offered rate at which each server still meets --slo; 64 connections and "
      "64 B unless given; at most 3 minutes for each count of connections and size");
  bench->add_option("--slo", t.slo,
                    "what --sweep looks for: p50, p90, p99 or p99.9 below us or ms, as 'p99<1ms'");
  bench->add_option("-o,--output", t.output, "folder for the results [results/DATE-TIME]");
  bench
      ->add_option(
          "--export", t.exported,
          "also write gbench.json, as Google Benchmark would have: a block is a repetition")
      ->check(CLI::IsMember({"gbench"}));
  bench->add_flag("--dry-run", t.dry_run, "print the plan and start no server");
  bench->add_flag("--quick", t.quick, "64 B only and few slices: numbers, never a verdict");
  bench->callback([typed, &chosen] { chosen = [typed] { return run_bench(*typed); }; });
}

}  // namespace echolab::harness
