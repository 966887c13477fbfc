// A run as Google Benchmark would have written it (its --benchmark_format=json), for tools that
// read that: its own tools/compare.py, continuous-benchmark services.
#pragma once

#include <nlohmann/json.hpp>

#include "harness/run_record.hpp"

namespace echolab::harness {

// A benchmark is a row ("io_uring/c64/s64/d1"), a repetition is a block. cpu_time: the server's CPU
// ns per request; real_time: ns per request by the clock, all connections together. Rows without a
// kept slice, failed ones and the baseline's second copy are left out.
nlohmann::ordered_json to_gbench(const RunRecord&);

}  // namespace echolab::harness
