// What the facts about a machine mean for numbers measured on it, in plain words.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "harness/probe.hpp"

namespace echolab::harness {

struct Finding {
  enum class Level {
    ok,    // nothing to think of
    note,  // know it when you read the numbers
    warn,  // change it, or do not trust the numbers that it touches
  };
  Level level;
  std::string subject;  // "clock source"
  std::string value;    // "tsc, 25 ns a reading"
  std::string meaning;  // what it does to the numbers, and where it can be changed, how
};
const char* name_of(Finding::Level);

// `environment` is the record of environment.hpp; facts that it lacks are said to be unknown where
// they matter. Pure: nothing is measured here.
std::vector<Finding> diagnose(const nlohmann::json& environment, const MachineProbe&,
                              const Cpus& allowed);

}  // namespace echolab::harness
