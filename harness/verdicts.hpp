// Verdicts about the rows of a cell: each against the baseline, block by block, with the baseline's
// second copy (A/A) as the measure of what means nothing. Pure functions of the record.
#pragma once

#include <vector>

#include "harness/run_record.hpp"
#include "harness/statistics.hpp"

namespace echolab::harness {

// A figure that verdicts are about.
struct Metric {
  const char* name;   // in run.json
  const char* title;  // for people
  Better better;
  double delta;  // share; smaller differences do not matter
  std::optional<Judgement> Verdicts::*judgement;
  std::optional<double> Summary::*ratio;
  std::optional<double> (*of)(const SliceRow&);  // absent: this slice has none; null: a percentile
  std::optional<std::uint64_t> BlockRow::*percentile;  // of whole blocks; null: of slices
};
const std::vector<Metric>& verdict_metrics();

// The logarithm of the median per block, of the slices' own values and of their ratios to the
// baseline's slice of the same round; a percentile is the block's own. Blocks without any are left
// out.
std::vector<double> block_values(const Result&, const Metric&);
std::vector<double> block_ratios(const Result&, const Result& baseline, const Metric&);
// Why a percentile has no verdict between two rows: some of their blocks have too few samples
// beyond it to have it. Empty: all have it, or the figure is no percentile.
std::string too_few_samples(const Result&, const Result&, const Metric&);

// Fills in the verdicts of a cell whose gates are judged; none in a quick run or without blocks.
void judge_cell(CellRecord&, const Plan&);

// Whether the intervals of the cell are narrow enough to stop: those of CPU per request, the
// steadiest figure, of all rows that may have a verdict.
bool precise(const CellRecord&);

// "slower", or "no verdict: too noisy ..."
std::string verdict_text(const Judgement&);
// "1.08 [1.05, 1.11]"
std::string interval_text(const Judgement&);
// One line for each variant that has ratios in all closed-loop cells: their geometric mean.
std::vector<std::string> overall(const RunRecord&);

}  // namespace echolab::harness
