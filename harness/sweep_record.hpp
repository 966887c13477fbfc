// The sweeps of a run, as JSON: the part `sweeps` of run.json.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "harness/json_reader.hpp"
#include "harness/run_record.hpp"

namespace echolab::harness {

nlohmann::ordered_json write_goal(const std::optional<SweepGoal>&);
std::optional<SweepGoal> read_goal(const JsonReader&);
nlohmann::ordered_json write_sweeps(const std::vector<SweepRecord>&);
std::vector<SweepRecord> read_sweeps(const JsonReader&);  // throws JsonError

}  // namespace echolab::harness
