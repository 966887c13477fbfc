// What the seam costs: a backend against the raw control of the same mechanism, where a cell has
// both. Pairs of slices of one round, the median of each block, and over blocks the median with its
// interval, as for any other ratio (verdicts.hpp).
#pragma once

#include <string>
#include <vector>

#include "harness/run_record.hpp"

namespace echolab::harness {

// Of a cell whose gates are judged. A row that is not fit for a verdict has no ratio here either.
std::vector<Seam> seams_of(const CellRecord&, const Plan&);

// "seam: epoll costs 1.03x [1.01, 1.05] of raw-epoll's CPU per request"; several in one line. Empty
// if the cell has none.
std::string seam_line(const CellRecord&);

}  // namespace echolab::harness
