#include "harness/statistics.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <stdexcept>

namespace echolab::harness {
namespace {

// Rounding of a product of exact powers of two must not decide.
constexpr double kTiny = 1e-12;
constexpr std::array kNames = {"no verdict", "faster", "slower", "equivalent"};

// Which side of 1 +- delta an interval of logarithms lies on.
Verdict place(const Interval& interval, const Delta& delta, Better better) {
  // 1 - delta is nothing at all from 1 on: what costs nothing is never reached.
  const auto above = [](double share) { return std::log1p(share); };
  const auto below = [](double share) { return std::log1p(-std::min(share, 1.0)); };
  if (interval.low > above(delta.apart))
    return better == Better::less ? Verdict::slower : Verdict::faster;
  if (interval.high < below(delta.apart))
    return better == Better::less ? Verdict::faster : Verdict::slower;
  if (interval.low >= below(delta.same) && interval.high <= above(delta.same)) {
    return Verdict::equivalent;
  }
  return Verdict::none;
}

// Intervals between the k-th smallest and the k-th largest value, while they are any.
std::vector<Interval> nested(const std::vector<double>& sorted, auto tail) {
  std::vector<Interval> out;
  for (std::size_t k = 1; 2 * k <= sorted.size(); ++k) {
    const double coverage = 1 - 2 * tail(k - 1);
    if (coverage <= 0) break;
    out.push_back({sorted[k - 1], sorted[sorted.size() - k], coverage});
  }
  return out;
}

}  // namespace

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

double geometric_mean(std::span<const double> values) {
  if (values.empty()) throw std::invalid_argument("geometric mean of nothing");
  double sum = 0;
  for (const double value : values) {
    if (!(value > 0)) throw std::invalid_argument("geometric mean of a value that is not positive");
    sum += std::log(value);
  }
  return std::exp(sum / static_cast<double>(values.size()));
}

std::optional<Interval> Estimate::interval(double coverage) const {
  std::optional<Interval> narrowest;
  for (const Interval& one : intervals) {
    if (one.coverage + kTiny < coverage) break;
    narrowest = one;
  }
  return narrowest;
}

double sign_tail(std::size_t n, std::size_t k) {
  double term = std::ldexp(1.0, -static_cast<int>(n));
  double sum = 0;
  for (std::size_t i = 0; i <= std::min(n, k); ++i) {
    sum += term;
    term *= static_cast<double>(n - i) / static_cast<double>(i + 1);
  }
  return std::min(sum, 1.0);
}

// The largest of all values is in either sample, in proportion to their sizes; one of the first
// sample stands above all n of the second.
std::vector<double> mann_whitney_tails(std::size_t m, std::size_t n) {
  std::vector<std::vector<double>> above(n + 1, {1.0});  // with one less in the first sample
  for (std::size_t i = 1; i <= m; ++i) {
    std::vector<std::vector<double>> now(n + 1);
    now[0] = {1.0};
    for (std::size_t j = 1; j <= n; ++j) {
      now[j].assign(i * j + 1, 0.0);
      const auto total = static_cast<double>(i + j);
      for (std::size_t u = 0; u < above[j].size(); ++u) {
        now[j][u + j] += above[j][u] * static_cast<double>(i) / total;
      }
      for (std::size_t u = 0; u < now[j - 1].size(); ++u) {
        now[j][u] += now[j - 1][u] * static_cast<double>(j) / total;
      }
    }
    above = std::move(now);
  }
  std::vector<double> tails = above[n];
  std::partial_sum(tails.begin(), tails.end(), tails.begin());
  return tails;
}

Estimate estimate_median(std::span<const double> values) {
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  return {median(sorted), sorted.size(),
          nested(sorted, [&](std::size_t k) { return sign_tail(sorted.size(), k); })};
}

Estimate estimate_shift(std::span<const double> a, std::span<const double> b) {
  std::vector<double> differences;
  differences.reserve(a.size() * b.size());
  for (const double in_a : a) {
    for (const double in_b : b) differences.push_back(in_b - in_a);
  }
  std::sort(differences.begin(), differences.end());
  const std::vector<double> tails = mann_whitney_tails(a.size(), b.size());
  return {median(differences), std::min(a.size(), b.size()),
          nested(differences, [&](std::size_t u) { return tails[u]; })};
}

std::vector<double> holm(std::span<const double> p) {
  std::vector<std::size_t> order(p.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t x, std::size_t y) { return p[x] < p[y]; });
  std::vector<double> adjusted(p.size());
  double least = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    least = std::max(least, static_cast<double>(order.size() - i) * p[order[i]]);
    adjusted[order[i]] = std::min(1.0, least);
  }
  return adjusted;
}

std::size_t blocks_needed(std::size_t comparisons) {
  const double each = kAlpha / static_cast<double>(std::max<std::size_t>(comparisons, 1));
  std::size_t n = 1;
  while (2 * sign_tail(n, 0) > each) ++n;
  return n;
}

const char* name_of(Verdict verdict) {
  return kNames[static_cast<std::size_t>(verdict)];
}

std::optional<Verdict> verdict_of(const std::string& name) {
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (name == kNames[i]) return static_cast<Verdict>(i);
  }
  return std::nullopt;
}

Judgement judge(const Estimate& estimate, const Delta& delta, Better better, std::size_t beside) {
  Judgement out;
  out.blocks = estimate.samples;
  out.ratio = std::exp(estimate.center);
  out.delta = delta.apart;
  if (const std::optional<Interval> shown = estimate.interval()) {
    out.low = std::exp(shown->low);
    out.high = std::exp(shown->high);
  }
  const double each = kAlpha / static_cast<double>(std::max<std::size_t>(beside, 1));
  const std::optional<Interval> strict = estimate.interval(1 - each);
  if (!strict) {
    out.why = fmt::format("too few blocks: {}", estimate.samples);
    return out;
  }
  out.smallest_effect = std::expm1(std::log1p(delta.apart) + strict->half_width());
  for (const Interval& interval : estimate.intervals) {
    out.verdict = place(interval, delta, better);
    if (out.verdict == Verdict::none) continue;
    out.p = out.p_holm = 1 - interval.coverage;
    break;
  }
  if (out.p > kAlpha + kTiny) out.verdict = Verdict::none;
  if (out.verdict == Verdict::none) {
    out.why = fmt::format("could have seen {:.1f} %", *out.smallest_effect * 100);
  }
  return out;
}

void settle(std::span<Judgement* const> family) {
  std::vector<double> p;
  for (const Judgement* one : family) p.push_back(one->p);
  const std::vector<double> adjusted = holm(p);
  for (std::size_t i = 0; i < family.size(); ++i) {
    Judgement& one = *family[i];
    one.p_holm = adjusted[i];
    if (one.verdict == Verdict::none || one.p_holm <= kAlpha + kTiny) continue;
    one.why = fmt::format("{} alone, not among {} comparisons", name_of(one.verdict), p.size());
    one.verdict = Verdict::none;
  }
}

Delta delta_with(double least, const std::optional<Interval>& copies) {
  return {copies ? std::max(least, std::expm1(copies->half_width())) : least, least};
}

bool copies_differ(const Estimate& estimate, double delta) {
  const std::optional<Interval> interval = estimate.interval();
  if (!interval || (interval->low <= 0 && interval->high >= 0)) return false;
  return std::abs(estimate.center) > std::log1p(delta / 2);
}

bool may_be_worse(const Judgement& one, Better better) {
  if (!one.low || !one.high) return true;
  return better == Better::less ? *one.high > 1 + one.delta : *one.low < 1 - one.delta;
}

bool precise(std::span<const Judgement> judgements, double half_width) {
  return std::all_of(judgements.begin(), judgements.end(), [&](const Judgement& one) {
    return one.low && one.high && std::log(*one.high / *one.low) / 2 <= std::log1p(half_width);
  });
}

}  // namespace echolab::harness
