// From slices to the row that people read: gates, totals, and the paired ratios. Pure functions of
// the record, so a summary can be computed again from a stored run.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "harness/run_record.hpp"

namespace echolab::harness {

inline constexpr double kLittleLimit = 0.05;    // share; inflight against rate x latency
inline constexpr double kAchievedLimit = 0.99;  // share of the offered requests
inline constexpr double kClientLimit = 0.95;    // share of the client's CPU that is in use
inline constexpr double kDroppedLimit = 0.20;   // share of the slices; beyond: no verdict
inline constexpr double kStealFactor = 2;       // times the session's median share
inline constexpr double kStealFloor = 0.02;     // share; less cannot move a ratio noticeably

// Per-slice gates that need only the slice: little, client, achieved, empty. `shared_cpu`: client
// and server run on the same CPU, so the server's time is not the client's to use.
Gate judge_slice(const SliceRow&, const CellShape&, bool shared_cpu);

// |in flight / (rate x mean latency) - 1|. Absent without requests.
std::optional<double> little_error(const SliceRow&);
// The share of its time that the client had no CPU to spare. Absent without time.
std::optional<double> client_busy(const SliceRow&, bool shared_cpu);

// Whether the hypervisor certainly took more from a round than twice the session's median. The
// kernel shows steal in ticks of 10 ms, as long as a slice, so that a slice is too short to judge
// and a round is judged as a whole; the count may be up to one tick too high, which is forgiven.
bool stolen(std::uint64_t ticks, std::uint64_t tick_ns, std::uint64_t elapsed_ns, std::size_t cpus,
            double median_share);

double median(std::vector<double>);  // of at least one value

// Fills in gates, no_verdict and summary of every result of a cell.
void summarise(CellRecord&, const Plan&, const PlacementRecord&, const StealRecord&);

}  // namespace echolab::harness
