// echolab-benchmark: the matrix of servers and the parts of this project as Google Benchmarks.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <exception>
#include <memory>
#include <random>
#include <regex>
#include <string>
#include <vector>

#include "harness/benchmarks/entry.hpp"
#include "harness/benchmarks/reporter.hpp"
#include "harness/benchmarks/servers.hpp"
#include "harness/commands.hpp"
#include "harness/environment.hpp"
#include "harness/output.hpp"
#include "harness/units.hpp"

namespace echolab::benchmarks {
namespace {

using namespace harness;

// The value of one of the library's flags, which has no function to ask for it: the last on the
// command line, else the variable of that name, as the library does it.
std::string library_flag(int argc, char** argv, const std::string& name, std::string value) {
  std::string variable = name;
  for (char& c : variable) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  if (const char* set = std::getenv(variable.c_str())) value = set;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--" + name) value = "true";
    if (word.starts_with("--" + name + "=")) value = word.substr(name.size() + 3);
  }
  return value;
}

double seconds_of(const std::string& min_time) {
  char* end = nullptr;
  const double seconds = std::strtod(min_time.c_str(), &end);
  const std::string unit = end;
  if (end != min_time.c_str() && (unit.empty() || unit == "s") && seconds >= 0) return seconds;
  throw UsageError(fmt::format(
      "--benchmark_min_time '{}': expected seconds, such as 0.5; a number of iterations cannot be "
      "asked of servers",
      min_time));
}

// As the library matches: anywhere in the name; a leading '-' takes the others.
class Filter {
 public:
  explicit Filter(std::string text) {
    if (text.empty() || text == "all") text = ".";
    if (text.front() == '-') {
      inverted_ = true;
      text.erase(0, 1);
    }
    try {
      expression_ = std::regex(text);
    } catch (const std::regex_error&) {
      throw UsageError(fmt::format("--benchmark_filter: '{}' is not a regular expression", text));
    }
  }
  [[nodiscard]] bool takes(const std::string& name) const {
    return std::regex_search(name, expression_) != inverted_;
  }

 private:
  std::regex expression_;
  bool inverted_ = false;
};

std::vector<Entry> chosen_entries(Servers& servers, const std::string& filter) {
  std::vector<Entry> entries = servers.entries();
  add_sessions(entries);
  add_histogram(entries);
  add_protocols(entries);
  const Filter wanted(filter);
  const std::string example = entries.front().name;
  std::erase_if(entries, [&](const Entry& entry) { return !wanted.takes(entry.name); });
  if (entries.empty()) {
    throw UsageError(
        fmt::format("--benchmark_filter: '{}' matches no benchmark; names look like {}, "
                    "--benchmark_list_tests shows all",
                    filter, example));
  }
  return entries;
}

// What the numbers depend on, for the head of every report.
void add_context(Servers& servers, bool any_server, std::uint64_t seed) {
  const nlohmann::json machine = any_server ? servers.prepare().environment : environment();
  const auto fact = [&](const char* pointer) {
    const nlohmann::json value =
        machine.value(nlohmann::json::json_pointer(pointer), nlohmann::json());
    return value.is_string() ? value.get<std::string>() : "unknown";
  };
  const bool dirty = machine.value(nlohmann::json::json_pointer("/build/dirty"), false);
  benchmark::AddCustomContext("kernel", fact("/kernel/release"));
  benchmark::AddCustomContext("commit", fact("/build/commit") + (dirty ? "+dirty" : ""));
  benchmark::AddCustomContext("build", fact("/build/type"));
  if (!any_server) return;
  const Placement& placement = servers.prepare().placement;
  benchmark::AddCustomContext("seed", std::to_string(seed));
  benchmark::AddCustomContext(
      "placement",
      fmt::format("{}: servers on CPU {}, client on CPU {} ({})", placement.same ? "same" : "split",
                  cpu_list(placement.server), cpu_list(placement.client), placement.reason));
}

// The reporter for --benchmark_out, which the library makes itself only for reports as they are.
std::unique_ptr<benchmark::BenchmarkReporter> file_reporter(const std::string& format) {
  if (format == "json") return std::make_unique<benchmark::JSONReporter>();
  if (format == "console") {
    return std::make_unique<benchmark::ConsoleReporter>(benchmark::ConsoleReporter::OO_None);
  }
  throw UsageError(fmt::format("--benchmark_out_format '{}': expected json or console", format));
}

int run(int argc, char** argv) {
  const auto flag = [&](const char* name, const char* otherwise) {
    return library_flag(argc, argv, name, otherwise);
  };
  ServerSettings settings;
  settings.min_time_s = seconds_of(flag("benchmark_min_time", "0.5"));
  const bool list =
      std::string("tTyY1").find(flag("benchmark_list_tests", "0")[0]) != std::string::npos;
  const bool to_file = !flag("benchmark_out", "").empty();
  const auto file = to_file ? file_reporter(flag("benchmark_out_format", "json")) : nullptr;

  benchmark::Initialize(&argc, argv, [] {
    benchmark::PrintDefaultHelp();
    fmt::print(
        "          [--place=auto|same|split]\n          [--seed=<number>]\n"
        "          [--server=NAME='COMMAND {{port}}']\n");
  });
  CLI::App app("The matrix of servers and the parts of this project as Google Benchmarks.",
               "echolab-benchmark");
  std::string place = "auto", seed;
  std::vector<std::string> more;
  app.add_option("--place", place)->check(CLI::IsMember({"auto", "same", "split"}));
  app.add_option("--seed", seed);
  app.add_option("--server", more);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    throw UsageError(fmt::format("{} (see --help)", error.what()));
  }
  settings.place = parse_place(place);
  settings.seed = seed.empty() ? std::random_device{}() : parse_seed(seed, "--seed");
  for (const std::string& text : more) settings.more.push_back(parse_server(text));

  Servers servers(settings);
  const std::vector<Entry> entries = chosen_entries(servers, benchmark::GetBenchmarkFilter());
  if (list) {
    for (const Entry& entry : entries) fmt::print("{}\n", entry.name);
    return kExitOk;
  }
  bool any_server = false;
  for (const Entry& entry : entries) {
    any_server = any_server || entry.server;
    auto* registered = benchmark::RegisterBenchmark(entry.name.c_str(), entry.run);
    if (entry.server) registered->UseManualTime();
  }
  add_context(servers, any_server, settings.seed);
  Reporter display(*benchmark::CreateDefaultDisplayReporter());
  std::unique_ptr<Reporter> to;
  if (file) to = std::make_unique<Reporter>(*file);
  benchmark::RunSpecifiedBenchmarks(&display, to.get(), ".");  // they are filtered already
  benchmark::Shutdown();
  return servers.exit_status();
}

}  // namespace
}  // namespace echolab::benchmarks

int main(int argc, char** argv) {
  using namespace echolab::harness;
  prepare_streams();
  try {
    const int status = echolab::benchmarks::run(argc, argv);
    if (show("")) return status;
    tell("echolab-benchmark: cannot write the results to stdout\n");
    return status == kExitOk ? kExitFailed : status;
  } catch (const std::invalid_argument& error) {  // UsageError, and what a plan refuses
    tell(fmt::format("echolab-benchmark: {}\n", error.what()));
    return kExitUsage;
  } catch (const std::exception& error) {
    tell(fmt::format("echolab-benchmark: {}\n", error.what()));
    return kExitFailed;
  }
}
