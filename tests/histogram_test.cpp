// The histogram against the sorted values that it stands for.
#include "harness/histogram.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/catch.hpp"

using echolab::harness::Histogram;

namespace {

using Random = std::mt19937_64;

// Values as latencies come: some distributions smooth, some with far outliers, some all equal.
std::vector<std::uint64_t> draw(Random& random, int kind, std::size_t n) {
  std::vector<std::uint64_t> values(n);
  for (std::uint64_t& v : values) {
    switch (kind) {
      case 0:
        v = random() % 2048;
        break;
      case 1:
        v = random() % 1'000'000;
        break;
      case 2:
        v = random() >> (22 + random() % 42);
        break;  // every power of two alike
      case 3:
        v = static_cast<std::uint64_t>(std::lognormal_distribution<>(10, 2)(random));
        break;
      case 4:
        v = static_cast<std::uint64_t>(std::exponential_distribution<>(1e-6)(random));
        break;
      case 5:
        v = random() % 1000 == 0 ? 100'000'000 : 20'000 + random() % 500;
        break;
      default:
        v = 4'194'304;
        break;
    }
    v = std::min(v, Histogram::kMaxValue);
  }
  return values;
}
constexpr int kKinds = 7;

Histogram of(const std::vector<std::uint64_t>& values) {
  Histogram h;
  for (const std::uint64_t v : values) h.record(v);
  return h;
}

bool same(const Histogram& a, const Histogram& b) {
  return a.count() == b.count() && a.min() == b.min() && a.max() == b.max() &&
         a.buckets() == b.buckets();
}

}  // namespace

TEST_CASE("every value lies in its bucket and buckets leave no gap", "[histogram]") {
  for (std::size_t i = 0; i < Histogram::kBuckets; ++i) {
    const std::uint64_t low = Histogram::lowest_in(i);
    const std::uint64_t high = Histogram::highest_in(i);
    REQUIRE(Histogram::index_of(low) == i);
    REQUIRE(Histogram::index_of(high) == i);
    REQUIRE(low == (i == 0 ? 0 : Histogram::highest_in(i - 1) + 1));
    REQUIRE((high - low) * 1024 <= low);  // the relative error
  }
  REQUIRE(Histogram::highest_in(Histogram::kBuckets - 1) == Histogram::kMaxValue);
}

TEST_CASE("quantiles, mean and extremes agree with the sorted values", "[histogram]") {
  const std::uint64_t seed = std::random_device{}();
  Random random(seed);
  for (int round = 0; round < 70; ++round) {
    const int kind = round % kKinds;
    CAPTURE(seed, round, kind);
    std::vector<std::uint64_t> values = draw(random, kind, 1 + random() % 5000);
    const Histogram h = of(values);
    std::sort(values.begin(), values.end());
    REQUIRE(h.count() == values.size());
    REQUIRE(h.min() == values.front());
    REQUIRE(h.max() == values.back());
    long double sum = 0;
    for (const std::uint64_t v : values) sum += static_cast<long double>(v);
    const double mean = static_cast<double>(sum / static_cast<long double>(values.size()));
    REQUIRE(std::abs(h.mean() - mean) <= 1e-9 * mean);

    for (const double q : {0.0, 0.001, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 0.9999, 1.0}) {
      CAPTURE(q);
      const auto rank = static_cast<std::size_t>(
          std::max(1.0L, std::ceil(static_cast<long double>(q) * values.size())));
      const std::uint64_t exact = values[rank - 1];
      const std::uint64_t got = h.quantile(q);
      REQUIRE(got >= exact);
      REQUIRE((got - exact) * 1024 <= exact);
      REQUIRE(got <= values.back());
    }
  }
}

TEST_CASE("merging is exact, in any order", "[histogram]") {
  const std::uint64_t seed = std::random_device{}();
  Random random(seed);
  for (int round = 0; round < 20; ++round) {
    CAPTURE(seed, round);
    std::vector<std::uint64_t> all;
    std::vector<Histogram> parts;
    for (int i = 0; i < 4; ++i) {
      const auto values = draw(random, static_cast<int>(random() % kKinds), random() % 500);
      parts.push_back(of(values));
      all.insert(all.end(), values.begin(), values.end());
    }
    Histogram forward;
    Histogram backward;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      forward.merge(parts[i]);
      backward.merge(parts[parts.size() - 1 - i]);
    }
    REQUIRE(same(forward, of(all)));
    REQUIRE(same(backward, forward));
    REQUIRE(std::abs(forward.sum() - backward.sum()) <= 1e-9 * forward.sum());
    REQUIRE(forward.quantile(0.99) == of(all).quantile(0.99));
    forward.clear();
    REQUIRE(same(forward, Histogram()));
  }
}

TEST_CASE("what is written can be restored", "[histogram]") {
  const std::uint64_t seed = std::random_device{}();
  Random random(seed);
  for (int kind = 0; kind < kKinds; ++kind) {
    CAPTURE(seed, kind);
    const Histogram h = of(draw(random, kind, 1000));
    const Histogram back = Histogram::restore(h.buckets(), h.min(), h.max(), h.sum());
    REQUIRE(same(back, h));
    REQUIRE(back.sum() == h.sum());
  }
  const Histogram empty;
  REQUIRE(same(Histogram::restore(empty.buckets(), empty.min(), empty.max(), 0), empty));
}

TEST_CASE("a sparse form that cannot be is refused", "[histogram]") {
  using Buckets = std::vector<std::pair<std::size_t, std::uint64_t>>;
  const auto refused = [](const Buckets& b, std::uint64_t min, std::uint64_t max, double sum) {
    try {
      Histogram::restore(b, min, max, sum);
    } catch (const std::invalid_argument&) {
      return true;
    }
    return false;
  };
  REQUIRE_FALSE(refused({{10, 1}, {20, 1}}, 10, 20, 30));
  REQUIRE(refused({{Histogram::kBuckets, 1}}, 10, 10, 10));
  REQUIRE(refused({{10, 0}}, 10, 10, 10));
  REQUIRE(refused({{20, 1}, {10, 1}}, 10, 20, 30));
  REQUIRE(refused({{10, 1}, {10, 1}}, 10, 10, 20));
  REQUIRE(refused({{10, 1}, {20, 1}}, 11, 20, 30));
  REQUIRE(refused({{10, 1}, {20, 1}}, 10, 21, 30));
  REQUIRE(refused({{10, 1}, {20, 1}}, 10, 20, 31));
  REQUIRE(refused({{10, 1}, {20, 1}}, 10, 20, std::nan("")));
  REQUIRE(refused({{10, UINT64_MAX}, {20, 1}}, 10, 20, 30));
  REQUIRE(refused({}, 1, 0, 0));
  REQUIRE(refused({}, 0, 0, 1));
}

TEST_CASE("edges: empty, too large, many at once", "[histogram]") {
  Histogram h;
  REQUIRE(h.count() == 0);
  REQUIRE(h.quantile(0.5) == 0);
  REQUIRE(h.mean() == 0);
  REQUIRE(h.min() == 0);
  REQUIRE(h.buckets().empty());
  h.record(7, 0);
  REQUIRE(h.count() == 0);
  REQUIRE(h.min() == 0);
  h.record(UINT64_MAX);
  REQUIRE(h.max() == Histogram::kMaxValue);
  REQUIRE(h.quantile(1) == Histogram::kMaxValue);
  h.record(5, 1'000'000'000'000);
  REQUIRE(h.quantile(0.999) == 5);
  REQUIRE(h.min() == 5);
}

TEST_CASE("a quantile needs a hundred samples beyond it", "[histogram]") {
  Histogram h;
  h.record(3, 999);
  REQUIRE(h.supported_quantile(0.5).has_value());
  REQUIRE_FALSE(h.supported_quantile(0.9).has_value());
  h.record(3);
  REQUIRE(h.supported_quantile(0.9) == 3U);
  REQUIRE_FALSE(h.supported_quantile(0.99).has_value());
  h.record(3, 9000);
  REQUIRE(h.supported_quantile(0.99) == 3U);
  REQUIRE_FALSE(h.supported_quantile(0.999).has_value());
  REQUIRE_FALSE(Histogram().supported_quantile(0).has_value());
}

TEST_CASE("the .hgrm text parses back to the same distribution", "[histogram]") {
  const std::uint64_t seed = std::random_device{}();
  Random random(seed);
  for (int kind = 0; kind < kKinds; ++kind) {
    CAPTURE(seed, kind);
    const Histogram h = of(draw(random, kind, 5000));
    std::stringstream text;
    h.write_hgrm(text, 1e3);
    std::string line;
    std::getline(text, line);
    REQUIRE(line.find("Value") != std::string::npos);
    REQUIRE(line.find("1/(1-Percentile)") != std::string::npos);
    std::getline(text, line);
    REQUIRE(line.empty());
    double value = -1;
    double percentile = 0;
    std::uint64_t count = 0;
    std::size_t lines = 0;
    while (std::getline(text, line) && line.front() != '#') {
      const double value_before = value;
      const std::uint64_t count_before = count;
      std::istringstream fields(line);
      REQUIRE(fields >> value >> percentile >> count);
      REQUIRE(value > value_before);
      REQUIRE(count > count_before);
      REQUIRE(std::abs(percentile - static_cast<double>(count) / 5000) < 1e-9);
      const double exact = static_cast<double>(h.quantile(percentile - 1e-9)) / 1e3;
      REQUIRE(std::abs(value - exact) <= 0.0006 + exact / 1024);
      ++lines;
      double inverse = 0;
      if (fields >> inverse) REQUIRE(std::abs(inverse * (1 - percentile) - 1) < 0.01);
    }
    REQUIRE(lines >= 1);
    REQUIRE(lines < 200);
    REQUIRE(percentile == 1);
    REQUIRE(count == h.count());
    REQUIRE(std::abs(value - static_cast<double>(h.max()) / 1e3) <= 0.0006);
    REQUIRE(line.rfind("#[Mean", 0) == 0);
    std::getline(text, line);
    REQUIRE(line.rfind("#[Max", 0) == 0);
    std::getline(text, line);
    REQUIRE(line.rfind("#[Buckets", 0) == 0);
  }
}
