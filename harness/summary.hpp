// From slices to the row that people read: totals, the paired ratios, and whether they are fit for
// a verdict (gates.hpp). Pure functions of the record, so a summary can be computed again from a
// stored run.
#pragma once

#include <optional>
#include <vector>

#include "harness/run_record.hpp"
#include "harness/statistics.hpp"

namespace echolab::harness {

// Fills in gates, no_verdict and summary of every result of a cell.
void summarise(CellRecord&, const Plan&, const PlacementRecord&, const StealRecord&);

// Open loop: the share of the offered requests that the server kept up with in these slices: of
// what was due, what was answered at all (the rest was skipped), and of the time, what was planned
// for it. At least one slice; absent if nothing was due.
std::optional<double> achieved_share(const std::vector<const SliceRow*>&, const Plan&);

}  // namespace echolab::harness
