// One generated sentence for a variant in a cell: which figures account for what it costs more or
// less than the baseline. It says no more than the figures show, and nothing about those that are
// absent. Pure functions of the record.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "harness/run_record.hpp"

namespace echolab::harness {

// Context switches of both kinds; absent unless both are known.
std::optional<double> switches_per_request(const Summary&);

// What the machine's probe says that things cost the CPU, us; absent: it does not say.
struct UnitCosts {
  std::optional<double> syscall_us;  // the cheapest system call
  std::optional<double> switch_us;   // a wake-up and the switch to the thread, on one CPU
};
UnitCosts unit_costs(const nlohmann::json& environment);

// "1.71 times the CPU (+3.15 us): 1.00 context switches per request against 0.038, about 50 % of
// it". Shares are estimates: the difference in count times the unit cost, in steps of ten percent.
// Without verdicts, numbers and no cause. Empty for the baseline, for a row that failed, and where
// there is nothing to compare.
std::string explain(const RunRecord&, const CellRecord&, const Result&);

// The same of two runs: b against a, which is of `run`. Empty where the verdicts tell nothing apart
// and do not call CPU equivalent.
std::string explain_change(const RunRecord& run, const CellShape&, const Result& a, const Result& b,
                           const Verdicts&);

}  // namespace echolab::harness
