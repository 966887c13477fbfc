// The runner: every contender of a cell started as a fresh process, all connected, only one loaded
// at a time, in short slices in shuffled rounds, so that the machine's drift meets all alike. That
// is a block; then all over again, because the same program differs from one process to the next.
//
// Uses the calling thread as the client: it is pinned while the run lasts and must be the only one
// that starts servers.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "harness/plan.hpp"
#include "harness/probe.hpp"
#include "harness/progress.hpp"
#include "harness/run_record.hpp"

namespace echolab::harness {

struct BenchOptions {
  Plan plan;
  PlaceWish place = PlaceWish::automatic;
  std::uint64_t seed = 0;
  std::vector<std::string> command;     // as typed, for the record
  std::string program;                  // our echo-server; not used if all contenders are foreign
  std::vector<VariantRecord> variants;  // of resolve_variants, in the order of plan.contenders
};

// What our echo-server's catalogue says about the contenders, unavailable ones marked. Starts no
// server. Throws UsageError for a backend that it does not know.
std::vector<VariantRecord> resolve_variants(const Plan&, const std::string& program);

// The machine that a run is about, and who gets which of its CPUs.
struct Preflight {
  nlohmann::json environment;  // with the probe
  Placement placement;
};
// Takes well under a second. Throws UsageError if the wish cannot be met here.
Preflight preflight(PlaceWish, unsigned server_threads);

// Runs the plan. What a server does wrong is recorded in its row and the rest goes on. After
// Load::interrupt() it stops in order and what there is comes back with partial = true.
// `after_cell` sees the record as it grows, partial until the last cell is in.
RunRecord run_bench(const BenchOptions&, Progress&,
                    const std::function<void(const RunRecord&)>& after_cell);
// The same after a preflight that serves several runs.
RunRecord run_bench(const BenchOptions&, const Preflight&, Progress&,
                    const std::function<void(const RunRecord&)>& after_cell);

}  // namespace echolab::harness
