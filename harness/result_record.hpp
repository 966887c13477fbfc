// One contender in one cell, as JSON: the part of run.json that run_record.cpp repeats.
#pragma once

#include <nlohmann/json.hpp>

#include "harness/json_reader.hpp"
#include "harness/run_record.hpp"

namespace echolab::harness {

// Six digits are finer than anything measured here, and keep the file small enough to commit.
double rounded(double value);

nlohmann::ordered_json write_result(const Result&, bool open_loop);
// `version` of the run. Throws JsonError.
Result read_result(const JsonReader&, bool open_loop, std::uint64_t version);

}  // namespace echolab::harness
