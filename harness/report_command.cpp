// `harness report`: a stored run as a page, and its headline as pictures.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>

#include "harness/commands.hpp"
#include "harness/report.hpp"
#include "harness/run_folder.hpp"
#include "harness/units.hpp"
#include "harness/verdict_svg.hpp"

namespace echolab::harness {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPage = "report.html";
constexpr const char* kPictures = "verdicts";

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
  const fs::path page = typed.output.empty() ? folder / kPage : fs::path(typed.output);
  // Two pages in one folder do not take each other's pictures.
  const bool usual = page.filename() == kPage;
  const std::string pictures = usual ? kPictures : page.stem().string() + "-" + kPictures;
  const auto write = [](const fs::path& path, const std::string& text) {
    replace_file(path, text, false);
    fmt::print("{}\n", path.string());
  };
  write(page, report_html(run));
  write(page.parent_path() / (pictures + "-light.svg"), verdict_svg(run, Theme::light));
  write(page.parent_path() / (pictures + "-dark.svg"), verdict_svg(run, Theme::dark));
  return kExitOk;
}

}  // namespace

void add_report(CLI::App& app, Chosen& chosen) {
  const auto typed = std::make_shared<ReportArguments>();
  ReportArguments& t = *typed;
  CLI::App* report = app.add_subcommand("report",
                                        "Write a run as one page for browsers (report.html), and "
                                        "its headline as pictures for a README "
                                        "(verdicts-light.svg, verdicts-dark.svg).");
  report->add_option("RUN", t.run, "a run folder or its run.json")->required();
  report->add_option("-o,--output", t.output,
                     "the page (default: report.html beside run.json); the pictures go beside it, "
                     "those of NAME.html as NAME-verdicts-light.svg and NAME-verdicts-dark.svg");
  report->callback([typed, &chosen] { chosen = [typed] { return run_report(*typed); }; });
}

}  // namespace echolab::harness
