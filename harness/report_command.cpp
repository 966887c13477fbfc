// `harness report`: a stored run as a page.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>

#include "harness/commands.hpp"
#include "harness/report.hpp"
#include "harness/run_folder.hpp"
#include "harness/units.hpp"

namespace echolab::harness {
namespace {

namespace fs = std::filesystem;

struct ReportArguments {
  std::string run, output;
};

int run_report(const ReportArguments& typed) {
  RunRecord run;
  try {
    run = read_run(typed.run);
  } catch (const RecordError& error) {
    throw UsageError(error.what());
  }
  const fs::path given(typed.run);
  const fs::path folder = fs::is_directory(given) ? given : given.parent_path();
  const fs::path page = typed.output.empty() ? folder / "report.html" : fs::path(typed.output);
  replace_file(page, report_html(run), false);
  fmt::print("{}\n", page.string());
  return kExitOk;
}

}  // namespace

void add_report(CLI::App& app, Chosen& chosen) {
  const auto typed = std::make_shared<ReportArguments>();
  ReportArguments& t = *typed;
  CLI::App* report = app.add_subcommand(
      "report", "Write a run as one page for browsers (report.html), with all its figures.");
  report->add_option("RUN", t.run, "a run folder or its run.json")->required();
  report->add_option("-o,--output", t.output, "the page (default: report.html beside run.json)");
  report->callback([typed, &chosen] { chosen = [typed] { return run_report(*typed); }; });
}

}  // namespace echolab::harness
