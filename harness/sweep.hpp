// The sweep: for each variant the highest offered rate at which it still meets a service level
// objective (SLO), such as "p99 < 1 ms".
//
// How: the closed-loop peaks are measured first (calibration.hpp). Then all variants are offered
// the same rates, a geometric ladder up to above the highest peak; each step is an ordinary cell of
// the run, open loop with Poisson arrivals, the variants interleaved in blocks of fresh processes.
// Who misses at two steps in a row is not offered more. Then rates between the last one that was
// met and the first that was not, until these are within 5 % or the time is up.
//
// A step is met if the percentile of all kept slices is below the limit and, so that it is not
// luck, that of most blocks alone is too. The percentile needs 100 samples beyond it; a step goes
// on with more blocks until there are so many. A rate that the server does not keep up with is
// missed; where client and servers share CPUs, it is the pair that does not keep up. Where a
// generator on a CPU of its own or the machine spoils the figures, or samples lack, it is not
// known, which is never taken for met.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "harness/plan.hpp"
#include "harness/run_record.hpp"

namespace echolab::harness {

// "p99<1ms", of p50, p90, p99 and p99.9, in us or ms. Throws UsageError, one line.
SweepGoal parse_slo(const std::string&);
std::string slo_text(double percentile, std::uint64_t limit_ns);  // "p99 < 1 ms"

// The ladder as shares of the highest peak, ascending; fewer and coarser steps if quick.
std::vector<double> sweep_shares(bool quick);
// The ladder in requests/s, whole and distinct. Empty: no peak is known.
std::vector<double> sweep_rates(const Plan&, unsigned connections, std::size_t size);
// The longest that so many sweeps may take: the plan's cap, if it has one.
std::chrono::nanoseconds sweep_time(const Plan&, std::size_t sweeps);

// Whether all rows that can be judged have samples enough for the percentile.
bool enough_samples(const CellRecord&, const SweepGoal&);
// One row of a step. `block_percentiles`: of each block alone, ns.
SweepStep judge_step(const Result&, double rate, const Plan&,
                     const std::vector<std::uint64_t>& block_percentiles);

// Offers a rate to some variants and says how it went with each. Nothing: no time for it, or
// interrupted. A variant that is not in the answer is gone.
using Measure = std::function<std::optional<std::vector<SweepStep>>(
    double rate, const std::vector<std::string>& variants)>;

// Of which nothing is known yet.
SweepRecord begin_sweep(const CellShape&, const SweepGoal&);
// Fills in steps and results. False: it was stopped before the ladder was done.
bool search(SweepRecord&, const std::vector<std::string>& variants,
            const std::vector<double>& ladder, bool refine, const Measure&);

// For people. The curve: a row for each rate, a column for each variant.
std::vector<std::string> sweep_headings(const SweepRecord&);
std::vector<std::vector<std::string>> sweep_rows(const SweepRecord&);
std::string sweep_title(const SweepRecord&);
std::vector<std::string> sweep_lines(const SweepRecord&);  // one for each variant

}  // namespace echolab::harness
