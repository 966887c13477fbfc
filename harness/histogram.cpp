#include "harness/histogram.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <ostream>
#include <stdexcept>
#include <string>

namespace echolab::harness {
namespace {

// The power of two by which values of a bucket were shifted: 0 in the first two halves.
unsigned shift_of(std::size_t index) {
  const std::size_t half = index >> (Histogram::kSubBits - 1);
  return half < 2 ? 0 : static_cast<unsigned>(half - 1);
}

static_assert(Histogram::index_of(0) == 0);
static_assert(Histogram::index_of(2047) == 2047 && Histogram::index_of(2048) == 2048);
static_assert(Histogram::index_of(Histogram::kMaxValue) == Histogram::kBuckets - 1);

}  // namespace

std::uint64_t Histogram::lowest_in(std::size_t index) {
  const unsigned shift = shift_of(index);
  return static_cast<std::uint64_t>(index - (static_cast<std::size_t>(shift) << (kSubBits - 1)))
         << shift;
}

std::uint64_t Histogram::highest_in(std::size_t index) {
  return lowest_in(index) + (1ULL << shift_of(index)) - 1;
}

Histogram::Histogram() : counts_(kBuckets) {
}

void Histogram::merge(const Histogram& other) {
  for (std::size_t i = 0; i < kBuckets; ++i) counts_[i] += other.counts_[i];
  count_ += other.count_;
  min_ = std::min(min_, other.min_);
  max_ = std::max(max_, other.max_);
  sum_ += other.sum_;
}

void Histogram::clear() {
  std::fill(counts_.begin(), counts_.end(), 0);
  count_ = 0;
  min_ = UINT64_MAX;
  max_ = 0;
  sum_ = 0;
}

std::uint64_t Histogram::min() const {
  return count_ == 0 ? 0 : min_;
}
std::uint64_t Histogram::max() const {
  return max_;
}

double Histogram::mean() const {
  return count_ == 0 ? 0 : sum_ / static_cast<double>(count_);
}

std::uint64_t Histogram::quantile(double q) const {
  if (count_ == 0) return 0;
  // In long double, q * count keeps all 64 bits of the count.
  const long double exact =
      static_cast<long double>(std::clamp(q, 0.0, 1.0)) * static_cast<long double>(count_);
  const auto rank =
      std::clamp<std::uint64_t>(static_cast<std::uint64_t>(std::ceil(exact)), 1, count_);
  std::uint64_t seen = 0;
  for (std::size_t i = index_of(min_); i < kBuckets; ++i) {
    seen += counts_[i];
    if (seen >= rank) return std::min(highest_in(i), max_);
  }
  return max_;
}

std::optional<std::uint64_t> Histogram::supported_quantile(double q, double beyond) const {
  constexpr double rounding = 1e-6;  // 1000 samples do support 0.9, although 1 - 0.9 < 0.1
  if (static_cast<double>(count_) * (1 - q) < beyond - rounding) return std::nullopt;
  return quantile(q);
}

std::vector<std::pair<std::size_t, std::uint64_t>> Histogram::buckets() const {
  std::vector<std::pair<std::size_t, std::uint64_t>> result;
  if (count_ == 0) return result;
  for (std::size_t i = index_of(min_); i <= index_of(max_); ++i) {
    if (counts_[i] != 0) result.emplace_back(i, counts_[i]);
  }
  return result;
}

Histogram Histogram::restore(std::span<const std::pair<std::size_t, std::uint64_t>> buckets,
                             std::uint64_t min, std::uint64_t max, double sum) {
  const auto fail = [](const std::string& why) {
    return std::invalid_argument("histogram: " + why);
  };
  Histogram h;
  double least = 0;
  double most = 0;
  for (std::size_t k = 0; k < buckets.size(); ++k) {
    const auto [index, count] = buckets[k];
    if (index >= kBuckets) throw fail(fmt::format("bucket {} is out of range", index));
    if (count == 0) throw fail(fmt::format("bucket {} has a count of zero", index));
    if (k > 0 && index <= buckets[k - 1].first) {
      throw fail(fmt::format("bucket {} is out of order", index));
    }
    if (count > UINT64_MAX - h.count_) throw fail("the counts are too large");
    h.counts_[index] = count;
    h.count_ += count;
    least += static_cast<double>(lowest_in(index)) * static_cast<double>(count);
    most += static_cast<double>(highest_in(index)) * static_cast<double>(count);
  }
  if (h.count_ == 0) {
    if (min != 0 || max != 0 || sum != 0) throw fail("it is empty but has extremes or a sum");
    return h;
  }
  if (min > max || max > kMaxValue || index_of(min) != buckets.front().first ||
      index_of(max) != buckets.back().first) {
    throw fail("its extremes lie outside their buckets");
  }
  const double slack = 1e-9 * most;  // for rounding in sums of many doubles
  if (!(sum >= least - slack && sum <= most + slack)) throw fail("its sum contradicts its buckets");
  h.min_ = min;
  h.max_ = max;
  h.sum_ = sum;
  return h;
}

void Histogram::write_hgrm(std::ostream& out, double unit) const {
  out << fmt::format("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount",
                     "1/(1-Percentile)");
  const auto total = static_cast<double>(count_);
  std::uint64_t seen = 0;
  double deviation = 0;
  const auto line = [&](std::uint64_t value) {
    const double quantile = static_cast<double>(seen) / total;
    const double shown = static_cast<double>(value) / unit;
    if (seen == count_) {
      out << fmt::format("{:12.3f} {:14.12f} {:10}\n", shown, 1.0, seen);
    } else {
      out << fmt::format("{:12.3f} {:14.12f} {:10} {:14.2f}\n", shown, quantile, seen,
                         1 / (1 - quantile));
    }
  };
  // A line where a bucket passes the next tick. Ticks get finer towards 1: five for each halving of
  // what is left, as in the original, so the tail is drawn as well as the body.
  constexpr double kTicksPerHalf = 5;
  double next_tick = 0;
  for (const auto& [index, count] : buckets()) {
    const std::uint64_t value = std::min(highest_in(index), max_);
    const double middle = (static_cast<double>(lowest_in(index)) + static_cast<double>(value)) / 2;
    deviation += (middle - mean()) * (middle - mean()) * static_cast<double>(count);
    seen += count;
    const double quantile = static_cast<double>(seen) / total;
    if (quantile < next_tick && seen != count_) continue;
    line(value);
    if (seen == count_) break;
    const double halvings = std::floor(std::log2(1 / (1 - quantile))) + 1;
    const double step = 1 / (kTicksPerHalf * std::exp2(halvings));
    next_tick = (std::floor(quantile / step) + 1) * step;
  }
  const double deviation_shown = count_ == 0 ? 0 : std::sqrt(deviation / total) / unit;
  out << fmt::format("#[Mean    = {:12.3f}, StdDeviation   = {:12.3f}]\n", mean() / unit,
                     deviation_shown);
  out << fmt::format("#[Max     = {:12.3f}, Total count    = {:12}]\n",
                     static_cast<double>(max()) / unit, count_);
  out << fmt::format("#[Buckets = {:12}, SubBuckets     = {:12}]\n", kBuckets >> (kSubBits - 1),
                     1U << kSubBits);
}

}  // namespace echolab::harness
