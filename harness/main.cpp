// The harness program: parses the command line and runs one subcommand.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <exception>
#include <string>

#include "harness/commands.hpp"
#include "harness/output.hpp"
#include "harness/units.hpp"

namespace {

// Results that did not reach stdout (a full disk, a closed pipe) are a failed run, not a good one.
int flushed(int exit_code) {
  using namespace echolab::harness;
  if (show("")) return exit_code;
  tell("harness: cannot write the results to stdout\n");
  return exit_code == kExitOk ? kExitFailed : exit_code;
}

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace echolab::harness;
  prepare_streams();
  CLI::App app("Measures what each I/O model costs on this machine.", "harness");
  app.set_version_flag("--version", "harness " ECHOLAB_VERSION);
  app.require_subcommand(0, 1);
  Chosen chosen;
  add_load(app, chosen);
  add_bench(app, chosen);
  add_compare(app, chosen);
  add_report(app, chosen);
  add_list(app, chosen);
  add_doctor(app, chosen);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return flushed(app.exit(error));  // --help, --version
    tell(fmt::format("harness: {} (see --help)\n", one_line(error.what())));
    return kExitUsage;
  }
  if (!chosen) {
    tell(app.help());
    return kExitUsage;
  }
  try {
    return flushed(chosen());
  } catch (const UsageError& error) {
    tell(fmt::format("harness: {}\n", one_line(error.what())));
    return kExitUsage;
  } catch (const std::exception& error) {
    tell(fmt::format("harness: {}\n", one_line(error.what())));
    return kExitFailed;
  }
}
