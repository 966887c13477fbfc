#include "harness/histogram.hpp"

#include <array>
#include <cmath>
#include <memory>
#include <random>

#include "harness/benchmarks/entry.hpp"

namespace echolab::benchmarks {
namespace {

using harness::Histogram;

constexpr std::uint64_t kSeed = 1;  // the same values in every run
// Latencies as they come: spread over three powers of ten. One and the same value would stay in one
// bucket, which the first cache and the branch predictor would soon know.
constexpr double kShortest = 5e3, kLongest = 5e6;  // ns
constexpr std::size_t kValues = 1 << 14;           // a power of two, so that going round is cheap

std::vector<std::uint64_t> latencies() {
  std::mt19937_64 random(kSeed);
  std::uniform_real_distribution<double> exponent(std::log(kShortest), std::log(kLongest));
  std::vector<std::uint64_t> out(kValues);
  for (auto& value : out) value = static_cast<std::uint64_t>(std::exp(exponent(random)));
  return out;
}

Histogram filled() {
  Histogram histogram;
  for (const std::uint64_t value : latencies()) histogram.record(value);
  return histogram;
}

void record(benchmark::State& state) {
  const std::vector<std::uint64_t> values = latencies();
  Histogram histogram;
  std::size_t i = 0;
  for (auto _ : state) {
    histogram.record(values[i++ % kValues]);
    benchmark::ClobberMemory();  // each is stored, none is summed up in registers
  }
  benchmark::DoNotOptimize(histogram.count());
}

// A run merges what it has not touched for a while. So many histograms are larger than the last
// cache of most machines, or at least than what others leave of it.
void merge(benchmark::State& state) {
  constexpr std::size_t kSources = 128;  // of 264 KiB each
  const std::vector<Histogram> sources(kSources, filled());
  Histogram sum;
  std::size_t i = 0;
  for (auto _ : state) {
    sum.merge(sources[i++ % kSources]);
    benchmark::ClobberMemory();
  }
  benchmark::DoNotOptimize(sum.count());
}

void quantile(benchmark::State& state) {
  const Histogram histogram = filled();
  for (auto _ : state) {
    double q = 0.99;
    benchmark::DoNotOptimize(q);  // not known in advance, so nothing is computed once for all
    benchmark::DoNotOptimize(histogram.quantile(q));
  }
}

}  // namespace

void add_histogram(std::vector<Entry>& out) {
  out.push_back({"histogram/record", record});
  out.push_back({"histogram/merge", merge});
  out.push_back({"histogram/quantile", quantile});
}

}  // namespace echolab::benchmarks
