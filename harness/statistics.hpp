// Estimates, intervals and verdicts, from numbers alone. Ratios are handled as natural logarithms,
// so that "twice as much" and "half as much" are equally far from "the same"; 0 is a ratio of 1.
// Pure functions; they throw std::invalid_argument where it says so, and nothing else.
//
// The intervals assume that blocks are independent, and nothing about the shape of their
// distribution. Blocks that depend on each other (a machine that drifts through all of them) make
// them too narrow: statistics_test.cpp shows by how much. Pairs within a block cancel such a drift.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace echolab::harness {

inline constexpr double kCoverage = 0.95;        // of the intervals
inline constexpr double kAlpha = 1 - kCoverage;  // the share of wrong verdicts that is accepted

double median(std::vector<double>);  // of at least one value
// Of values above zero, at least one. Throws std::invalid_argument. (Fleming and Wallace, "How not
// to lie with statistics", CACM 29(3), 1986: ratios are averaged like this.)
double geometric_mean(std::span<const double>);

struct Interval {
  double low = 0, high = 0;
  double coverage = 0;  // the probability to contain what is estimated: at least this
  [[nodiscard]] double half_width() const { return (high - low) / 2; }
};

// An estimate and all its intervals, the widest first: each lies within the one before.
struct Estimate {
  double center = 0;
  std::size_t samples = 0;  // of the smaller sample, if there are two
  std::vector<Interval> intervals;

  // The narrowest one that covers with at least this probability; none: too few samples.
  [[nodiscard]] std::optional<Interval> interval(double coverage = kCoverage) const;
};

// P(X <= k) for X of a binomial distribution with n trials of probability 1/2; n below 1000.
double sign_tail(std::size_t n, std::size_t k);
// P(U <= u) of the Mann-Whitney statistic of two samples of sizes m and n from one distribution
// (Mann and Whitney, Annals of Mathematical Statistics 18, 1947), for every u from 0 on.
std::vector<double> mann_whitney_tails(std::size_t m, std::size_t n);

// The median, with intervals between the k-th smallest and the k-th largest value (David and
// Nagaraja, "Order Statistics", 3rd edition, section 7.1). n=6: min..max, 96.9 %; 9: x2..x8, 96.1
// %. At least one value.
Estimate estimate_median(std::span<const double>);
// By how much b lies above a: the median of all differences, with intervals between the k-th
// smallest and the k-th largest of them (Hodges and Lehmann, Annals of Mathematical Statistics 34,
// 1963; Hollander and Wolfe, "Nonparametric Statistical Methods", section 4.3). Exact if the two
// distributions differ by a shift only. At least one value each.
Estimate estimate_shift(std::span<const double> a, std::span<const double> b);

// p-values adjusted for being several, in their order (Holm, Scandinavian Journal of Statistics 6,
// 1979): what is at most alpha after that is wrong in any of them with at most that probability.
std::vector<double> holm(std::span<const double> p);

// Blocks without which no verdict about `comparisons` variants is possible, however large the
// difference: the widest interval of so many misses with a probability of 2^(1-n).
std::size_t blocks_needed(std::size_t comparisons);

enum class Verdict : std::uint8_t { none, faster, slower, equivalent };
const char* name_of(Verdict);  // "no verdict", "faster", ...
std::optional<Verdict> verdict_of(const std::string& name);

enum class Better : std::uint8_t { less, more };  // which ratio is the better one

// What one comparison says. Ratios are plain here, no logarithms.
struct Judgement {
  std::size_t blocks = 0;
  double ratio = 1;
  std::optional<double> low, high;  // at kCoverage, of this comparison alone
  double delta = 0;                 // differences up to this share do not matter
  double p = 1;                     // the smallest alpha that gives a verdict
  double p_holm = 1;                // adjusted for the comparisons beside it
  Verdict verdict = Verdict::none;
  std::optional<double> smallest_effect;  // share; less could not have been told. None: nothing
  std::string why;                        // there is no verdict; empty if there is one
};

// What differences are judged against, as shares.
struct Delta {
  double apart = 0;  // faster and slower lie wholly beyond it
  double same = 0;   // equivalent lies wholly within it; never above `apart`
};

// faster or slower: an interval wholly beyond 1 +- delta; equivalent: one wholly within. `p` is the
// share that the widest such interval misses. `beside`: comparisons in the same family, itself
// included. A verdict of this function holds for one comparison: settle() has the last word.
Judgement judge(const Estimate& of_logarithms, const Delta&, Better, std::size_t beside = 1);
// Takes back the verdicts of a family that do not hold when all are considered together.
void settle(std::span<Judgement* const> family);

// A difference counts from `least` on, and from what two copies of one server differ by in this
// very run: the half-width of their interval. Noise widens what is not told apart, never what is
// called the same.
Delta delta_with(double least, const std::optional<Interval>& copies);
// Whether two copies of one server differ: their interval excludes 1, and its center lies further
// off than half of delta. Closer, delta has room for it.
bool copies_differ(const Estimate& of_logarithms, double delta);

// Whether it may be worse by more than delta, for all that is known: its interval reaches there, or
// there is none.
bool may_be_worse(const Judgement&, Better);

// Whether to stop: all intervals are at most so wide, half-width as a share. Says nothing about
// where they lie; to stop when a difference shows would find differences everywhere.
bool precise(std::span<const Judgement>, double half_width);

}  // namespace echolab::harness
