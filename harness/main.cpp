// The harness program: parses the command line and runs one subcommand.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>

#include "harness/commands.hpp"
#include "harness/units.hpp"

namespace {

// Results that did not reach stdout (a full disk, a closed pipe) are a failed run, not a good one.
int flushed(int exit_code) {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return exit_code;
  fmt::print(stderr, "harness: cannot write the results to stdout\n");
  return exit_code == 0 ? echolab::harness::kExitFailed : exit_code;
}

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace echolab::harness;
  CLI::App app("Measures what each I/O model costs on this machine.", "harness");
  app.set_version_flag("--version", "harness " ECHOLAB_VERSION);
  app.require_subcommand(0, 1);
  Chosen chosen;
  add_load(app, chosen);
  add_bench(app, chosen);
  add_compare(app, chosen);
  add_list(app, chosen);
  add_doctor(app, chosen);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return flushed(app.exit(error));  // --help, --version
    fmt::print(stderr, "harness: {} (see --help)\n", one_line(error.what()));
    return kExitUsage;
  }
  if (!chosen) {
    fmt::print(stderr, "{}", app.help());
    return kExitUsage;
  }
  try {
    return flushed(chosen());
  } catch (const UsageError& error) {
    fmt::print(stderr, "harness: {}\n", one_line(error.what()));
    return kExitUsage;
  } catch (const std::exception& error) {
    fmt::print(stderr, "harness: {}\n", one_line(error.what()));
    return kExitFailed;
  }
}
