// `harness list`: every variant of the echo-server beside this program and the raw controls, why
// each is there, and whether it can run here.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "harness/commands.hpp"
#include "harness/controls.hpp"
#include "harness/process.hpp"

namespace echolab::harness {
namespace {

int run_list(bool json) {
  const nlohmann::json list = catalogue_with_controls(sibling_program("echo-server"));
  if (json) {
    fmt::print("{}\n", list.dump(2));
    return kExitOk;
  }
  std::size_t width = 0;
  for (const nlohmann::json& variant : list["variants"]) {
    width = std::max(width, variant["name"].get_ref<const std::string&>().size());
  }
  for (const nlohmann::json& variant : list["variants"]) {
    fmt::print("{:<{}}  {}\n", variant["name"].get_ref<const std::string&>(), width,
               variant["why"].get_ref<const std::string&>());
    const std::string why_not = variant["unavailable"];
    if (!why_not.empty()) fmt::print("{:<{}}  cannot run here: {}\n", "", width, why_not);
  }
  return kExitOk;
}

}  // namespace

void add_list(CLI::App& app, Chosen& chosen) {
  CLI::App* const command =
      app.add_subcommand("list", "Every variant, why it is there, and whether it can run here");
  const auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "As echo-server --list --json says it, with the raw controls");
  command->callback([&chosen, json] { chosen = [json] { return run_list(*json); }; });
}

}  // namespace echolab::harness
