// The second table of a cell: every row against the baseline, the figures that tell why, and a
// sentence about them.
#pragma once

#include <string>
#include <vector>

#include "harness/run_record.hpp"

namespace echolab::harness {

// Aligned, with the sentences below it; empty where nothing was measured.
std::string terminal_verdicts(const RunRecord&, const CellRecord&);
// A Markdown table, with the sentences as its last column.
std::string markdown_verdicts(const RunRecord&, const CellRecord&);
// Left-aligned columns, one line a row, of equally many texts each; at least one row.
std::string aligned(const std::vector<std::vector<std::string>>& rows);
// What the columns mean, as far as this run has them.
std::vector<std::string> verdict_legend(const RunRecord&);

}  // namespace echolab::harness
