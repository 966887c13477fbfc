// A log-linear latency histogram: 3 significant digits, one fixed layout, so that any two merge
// exactly. The layout is HdrHistogram's (Tene): within each power of two, 1024 equal buckets, so
// the relative error is below 1/1024; the first 2048 values have a bucket each.
//
// Values are nanoseconds in [0, kMaxValue]; what is larger counts as kMaxValue. Not thread-safe.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace echolab::harness {

class Histogram {
 public:
  static constexpr unsigned kSubBits = 11;                      // 2048 buckets below 2048 ns
  static constexpr std::uint64_t kMaxValue = (1ULL << 42) - 1;  // 73 minutes; no slice lasts longer
  static constexpr std::size_t kBuckets = ((42 - kSubBits) + 2) << (kSubBits - 1);

  // The bucket of a value in [0, kMaxValue]. Values from 2048 on keep their 11 leading bits; each
  // bit more moves on by half a table, because the upper half alone can hold a leading one.
  static constexpr std::size_t index_of(std::uint64_t value) {
    const auto width = static_cast<unsigned>(std::bit_width(value | (kSubCount - 1)));
    const unsigned shift = width - kSubBits;
    return (static_cast<std::size_t>(shift) << (kSubBits - 1)) +
           static_cast<std::size_t>(value >> shift);
  }
  static std::uint64_t lowest_in(std::size_t index);   // smallest value of a bucket
  static std::uint64_t highest_in(std::size_t index);  // largest value of a bucket

  Histogram();
  void record(std::uint64_t value, std::uint64_t times = 1) {
    if (value > kMaxValue) value = kMaxValue;
    counts_[index_of(value)] += times;
    count_ += times;
    sum_ += static_cast<double>(value) * static_cast<double>(times);
    if (times == 0) return;
    if (value < min_) min_ = value;
    if (value > max_) max_ = value;
  }
  void merge(const Histogram& other);
  void clear();

  [[nodiscard]] std::uint64_t count() const { return count_; }
  [[nodiscard]] std::uint64_t min() const;  // exact; 0 when empty
  [[nodiscard]] std::uint64_t max() const;  // exact; 0 when empty
  [[nodiscard]] double mean() const;        // exact sum over count; 0 when empty
  // The highest value equivalent to the one at this quantile (0..1), never above max(): at least
  // ceil(q * count) samples are at or below it. 0 when empty.
  [[nodiscard]] std::uint64_t quantile(double q) const;

  // A quantile that is worth printing: nothing unless so many samples lie beyond it, else a handful
  // of outliers decides it.
  static constexpr double kSamplesBeyond = 100;
  [[nodiscard]] std::optional<std::uint64_t> supported_quantile(
      double q, double beyond = kSamplesBeyond) const;

  // Non-empty buckets as (index, count), ascending: the sparse form that is written to results.
  [[nodiscard]] std::vector<std::pair<std::size_t, std::uint64_t>> buckets() const;
  // From the sparse form and the exact extremes and sum. Throws std::invalid_argument on an index
  // out of range or order, a zero count, extremes outside their buckets or a sum that they exclude.
  static Histogram restore(std::span<const std::pair<std::size_t, std::uint64_t>> buckets,
                           std::uint64_t min, std::uint64_t max, double sum);
  // Of all values, ns. A double: exact up to 2^53 ns, then right to 15 digits.
  [[nodiscard]] double sum() const { return sum_; }

  // The percentile distribution text that HdrHistogram's plotter reads (.hgrm). Values are divided
  // by unit (1e3: microseconds).
  void write_hgrm(std::ostream&, double unit = 1e3) const;

 private:
  static constexpr std::uint64_t kSubCount = 1ULL << kSubBits;

  std::vector<std::uint64_t> counts_;
  std::uint64_t count_ = 0;
  std::uint64_t min_ = UINT64_MAX;
  std::uint64_t max_ = 0;
  double sum_ = 0;
};

}  // namespace echolab::harness
