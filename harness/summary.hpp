// From slices to the row that people read: totals, the paired ratios, and whether they are fit for
// a verdict (gates.hpp). Pure functions of the record, so a summary can be computed again from a
// stored run.
#pragma once

#include <vector>

#include "harness/run_record.hpp"
#include "harness/statistics.hpp"

namespace echolab::harness {

// Fills in gates, no_verdict and summary of every result of a cell.
void summarise(CellRecord&, const Plan&, const PlacementRecord&, const StealRecord&);

}  // namespace echolab::harness
