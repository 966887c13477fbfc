// Two runs merged are one run: what is written to two run.json files and read back makes the same
// histograms as one run of all the samples.
#include <random>

#include "harness/run_record.hpp"
#include "tests/catch.hpp"
#include "tests/sample_run.hpp"

using namespace echolab::harness;
using nlohmann::json;

namespace {

// Latencies of a slice, in nanoseconds: of any size, or mostly small with far outliers.
std::vector<std::uint64_t> draw_slice(std::mt19937_64& rng) {
  std::vector<std::uint64_t> values(1 + rng() % 500);
  const bool any_size = rng() % 2 == 0;
  for (std::uint64_t& value : values) {
    value = any_size ? rng() >> (22 + rng() % 42) : 20'000 + rng() % 500;
    if (rng() % 100 == 0) value = 100'000'000 + rng() % 1000;
  }
  return values;
}

// The sample's open cell with these slices; from the actual send time they are half as long.
RunRecord run_of(const std::vector<std::vector<std::uint64_t>>& slices) {
  RunRecord run = sample_run();
  Result& result = run.cells.at(1).results.at(0);
  result.slices.clear();
  result.latency.clear();
  result.raw->clear();
  for (const std::vector<std::uint64_t>& values : slices) {
    const auto round = static_cast<std::uint32_t>(result.slices.size());
    SliceRow row = sample_slice(round, values.size(), 1'000'000);
    row.due = row.requests;
    result.slices.push_back(row);
    for (const std::uint64_t value : values) {
      result.latency.record(value);
      result.raw->record(value / 2);
    }
  }
  result.blocks.clear();
  result.blocks.emplace_back(0, result.latency);
  return run;
}

Result stored(const RunRecord& run) {
  return run_from_json(json::parse(to_text(run))).cells.at(1).results.at(0);
}

bool same_counts(const Histogram& a, const Histogram& b) {
  return a.count() == b.count() && a.min() == b.min() && a.max() == b.max() &&
         a.buckets() == b.buckets();
}

}  // namespace

TEST_CASE("two stored runs merged give the histograms of one", "[histogram][record]") {
  const std::uint64_t seed = std::random_device{}();
  std::mt19937_64 rng(seed);
  for (int round = 0; round < 5; ++round) {
    CAPTURE(seed, round);
    std::vector<std::vector<std::uint64_t>> first(1 + rng() % 4), second(1 + rng() % 4);
    for (auto* part : {&first, &second}) {
      for (std::vector<std::uint64_t>& slice : *part) slice = draw_slice(rng);
    }
    std::vector<std::vector<std::uint64_t>> all = first;
    all.insert(all.end(), second.begin(), second.end());

    Result merged = stored(run_of(first));
    const Result other = stored(run_of(second)), whole = stored(run_of(all));
    merged.latency.merge(other.latency);
    merged.raw->merge(*other.raw);
    REQUIRE(same_counts(merged.latency, whole.latency));
    REQUIRE(same_counts(*merged.raw, *whole.raw));
    REQUIRE(std::abs(merged.latency.sum() - whole.latency.sum()) <= 1e-9 * whole.latency.sum());
    for (const double q : {0.0, 0.5, 0.9, 0.99, 0.999, 1.0}) {
      REQUIRE(merged.latency.quantile(q) == whole.latency.quantile(q));
      REQUIRE(merged.latency.supported_quantile(q) == whole.latency.supported_quantile(q));
    }
    std::stringstream of_two, of_one;
    merged.latency.write_hgrm(of_two);
    whole.latency.write_hgrm(of_one);
    REQUIRE(of_two.str() == of_one.str());
  }
}
