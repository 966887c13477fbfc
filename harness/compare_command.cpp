// `harness compare`: two stored runs side by side.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>

#include "harness/commands.hpp"
#include "harness/compare.hpp"
#include "harness/output.hpp"
#include "harness/run_folder.hpp"
#include "harness/units.hpp"

namespace echolab::harness {
namespace {

struct CompareArguments {
  std::string a, b;
  std::optional<std::string> fail_on;  // given and empty is no percentage
  bool json = false, markdown = false;
};

// A file that cannot be read is a command line that cannot be meant.
RunRecord read(const std::string& path) {
  try {
    return read_run(path);
  } catch (const RecordError& error) {
    throw UsageError(error.what());
  }
}

int run_compare(const CompareArguments& typed) {
  std::optional<double> limit;
  if (typed.fail_on) limit = parse_percent(*typed.fail_on, "--fail-on");
  const RunRecord a = read(typed.a), b = read(typed.b);
  const Comparison comparison = compare(a, b, limit);
  if (typed.json) {
    show(to_json(comparison, typed.a, typed.b, limit)
             .dump(2, ' ', false, nlohmann::json::error_handler_t::replace) +
         "\n");
  } else if (typed.markdown) {
    show(to_markdown(comparison, typed.a, typed.b, limit));
  } else {
    show(to_text(comparison, typed.a, typed.b, limit));
  }
  // What was not compared has not passed.
  const bool passed = !comparison.regressed() && comparison.gaps().empty();
  return !limit || passed ? kExitOk : kExitFailed;
}

}  // namespace

void add_compare(CLI::App& app, Chosen& chosen) {
  const auto typed = std::make_shared<CompareArguments>();
  CompareArguments& t = *typed;
  CLI::App* compare = app.add_subcommand(
      "compare", "Show two runs side by side, and what makes the comparison doubtful.");
  compare->add_option("A", t.a, "a run folder or its run.json: the reference")->required();
  compare->add_option("B", t.b, "another: what is compared with it")->required();
  compare->add_option(
      "--fail-on", t.fail_on,
      "exit 1 if a row certainly got worse by more than this, such as 5%, in CPU per "
      "request, throughput or p99, or if rows of A could not be compared");
  CLI::Option* markdown = compare->add_flag("--markdown", t.markdown, "print Markdown");
  compare->add_flag("--json", t.json, "print one JSON document (schema echolab.compare)")
      ->excludes(markdown);
  compare->callback([typed, &chosen] { chosen = [typed] { return run_compare(*typed); }; });
}

}  // namespace echolab::harness
