// `harness doctor`: what this machine is like, and what that means for numbers measured on it.
//
// --json prints one document, schema echolab.doctor version 1: findings [{subject, level, value,
// meaning}], probe (probe.hpp), placement {same, server_cpus, client_cpus, reason}, environment
// (environment.hpp).
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "harness/commands.hpp"
#include "harness/diagnosis.hpp"
#include "harness/environment.hpp"
#include "harness/probe.hpp"

namespace echolab::harness {
namespace {

constexpr int kDoctorVersion = 1;
constexpr std::size_t kWidth = 100;  // columns of the text, for any terminal
constexpr std::size_t kIndent = 24;  // of what follows level and subject

// Text broken at blanks, each line after the first indented.
std::string wrapped(std::string_view text) {
  std::string out;
  std::size_t column = kIndent;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    if (column > kIndent && column + 1 + end > kWidth) {
      out += "\n" + std::string(kIndent, ' ');
      column = kIndent;
    } else if (column > kIndent) {
      out += ' ';
      ++column;
    }
    out += text.substr(0, end);
    column += end;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

void print_text(const std::vector<Finding>& findings) {
  for (const Finding& finding : findings) {
    fmt::print("{:<6}{:<18}{}\n{:{}}{}\n", name_of(finding.level), finding.subject,
               wrapped(finding.value), "", kIndent, wrapped(finding.meaning));
  }
}

void print_json(const std::vector<Finding>& findings, const MachineProbe& probe,
                const Placement& placement, nlohmann::json environment) {
  nlohmann::json list = nlohmann::json::array();
  for (const Finding& finding : findings) {
    list.push_back({{"subject", finding.subject},
                    {"level", name_of(finding.level)},
                    {"value", finding.value},
                    {"meaning", finding.meaning}});
  }
  const nlohmann::json document = {{"schema", "echolab.doctor"},
                                   {"version", kDoctorVersion},
                                   {"findings", std::move(list)},
                                   {"probe", to_json(probe)},
                                   {"placement",
                                    {{"same", placement.same},
                                     {"server_cpus", placement.server},
                                     {"client_cpus", placement.client},
                                     {"reason", placement.reason}}},
                                   {"environment", std::move(environment)}};
  fmt::print("{}\n", document.dump(2));
}

int run_doctor(bool json) {
  const Cpus allowed = allowed_cpus();
  nlohmann::json record = environment();
  const MachineProbe probe = probe_machine(allowed);
  const std::vector<Finding> findings = diagnose(record, probe, allowed);
  if (json) {
    print_json(findings, probe, place(PlaceWish::automatic, probe, allowed, 1), std::move(record));
  } else {
    print_text(findings);
  }
  return kExitOk;
}

}  // namespace

void add_doctor(CLI::App& app, Chosen& chosen) {
  CLI::App* const command =
      app.add_subcommand("doctor", "Look at this machine and say what it means for the numbers");
  const auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "One JSON document instead of text");
  command->callback([&chosen, json] { chosen = [json] { return run_doctor(*json); }; });
}

}  // namespace echolab::harness
