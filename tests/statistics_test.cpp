// Statistics against known answers, and the coverage of the intervals by simulation.
#include "harness/statistics.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <utility>

#include "tests/catch.hpp"

using namespace echolab::harness;

namespace {

constexpr Delta kTwo{0.02, 0.02};

std::vector<double> ramp(std::size_t n) {
  std::vector<double> out;
  for (std::size_t i = 1; i <= n; ++i) out.push_back(static_cast<double>(i));
  return out;
}

// Written out, because the distributions of standard libraries differ and a seed must mean the
// same.
double uniform(std::mt19937_64& rng) {
  return (static_cast<double>(rng() >> 11) + 0.5) / 9007199254740992.0;
}
double normal(std::mt19937_64& rng) {
  const double radius = std::sqrt(-2 * std::log(uniform(rng)));
  return radius * std::cos(2 * std::acos(-1.0) * uniform(rng));
}

constexpr int kTrials = 4000;
// What chance may take off a share of 0.95 in so many trials: three standard errors.
const double kChance = 3 * std::sqrt(0.95 * 0.05 / kTrials);

// Laws by which blocks may vary, with their medians.
struct Law {
  const char* name;
  double median;
  double (*draw)(std::mt19937_64&);
};
const Law kLaws[] = {
    {"normal", 0, normal},
    {"skewed: exponential", std::log(2.0), [](auto& rng) { return -std::log(uniform(rng)); }},
    {"skewed: log-normal", 1, [](auto& rng) { return std::exp(2 * normal(rng)); }},
    {"heavy-tailed: Cauchy, without a mean", 0,
     [](auto& rng) { return std::tan(std::acos(-1.0) * (uniform(rng) - 0.5)); }},
    // Processes come out fast or slow, and in between there is next to nothing.
    {"bimodal", 0, [](auto& rng) { return (rng() % 2 == 0 ? -5 : 5) + normal(rng); }}};

// The share of intervals of n draws that contain the truth. `draw` begins a sample when it is new.
double coverage(std::size_t n, double truth,
                const std::function<double(std::mt19937_64&, bool begins)>& draw) {
  std::mt19937_64 rng(20240607);
  int hits = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::vector<double> values;
    for (std::size_t i = 0; i < n; ++i) values.push_back(draw(rng, i == 0));
    const Interval interval = estimate_median(values).interval().value();
    if (interval.low <= truth && truth <= interval.high) ++hits;
  }
  return static_cast<double>(hits) / kTrials;
}

// The same of the shift between m draws and n draws that lie 0.3 higher; the latter are `spread`
// times as far apart.
constexpr int kShiftTrials = 600;
const double kShiftChance = 3 * std::sqrt(0.95 * 0.05 / kShiftTrials);
double shift_coverage(std::size_t m, std::size_t n, const Law& law, double spread = 1) {
  constexpr double kTruth = 0.3;
  std::mt19937_64 rng(7);
  int hits = 0;
  for (int trial = 0; trial < kShiftTrials; ++trial) {
    std::vector<double> a, b;
    for (std::size_t i = 0; i < m; ++i) a.push_back(law.draw(rng) - law.median);
    for (std::size_t i = 0; i < n; ++i) {
      b.push_back(kTruth + spread * (law.draw(rng) - law.median));
    }
    const Interval interval = estimate_shift(a, b).interval().value();
    if (interval.low <= kTruth && kTruth <= interval.high) ++hits;
  }
  return static_cast<double>(hits) / kShiftTrials;
}

Estimate around(double center, double half_width, std::size_t n = 8) {
  std::vector<double> values;
  for (std::size_t i = 0; i < n; ++i) {
    const double at = -1 + 2 * static_cast<double>(i) / static_cast<double>(n - 1);
    values.push_back(center + at * half_width);
  }
  return estimate_median(values);
}

}  // namespace

TEST_CASE("medians and geometric means", "[statistics]") {
  CHECK(median({3}) == 3);
  CHECK(median({5, 1, 3}) == 3);
  CHECK(median({4, 1, 3, 2}) == 2.5);
  CHECK(geometric_mean(std::vector<double>{1, 100}) == Approx(10));
  CHECK(geometric_mean(std::vector<double>{0.5, 2}) == Approx(1));
  CHECK_THROWS_AS(geometric_mean({}), std::invalid_argument);
  CHECK_THROWS_AS(geometric_mean(std::vector<double>{1, 0}), std::invalid_argument);
  CHECK_THROWS_AS(geometric_mean(std::vector<double>{1, std::nan("")}), std::invalid_argument);
}

TEST_CASE("binomial tails", "[statistics]") {
  CHECK(sign_tail(6, 0) == 1.0 / 64);
  CHECK(sign_tail(9, 1) == 10.0 / 512);
  CHECK(sign_tail(4, 4) == 1);
  CHECK(sign_tail(999, 499) == Approx(0.5));
}

TEST_CASE("the median's intervals are those of the tables", "[statistics]") {
  struct Row {
    std::size_t n;
    double low, high, coverage;
  };
  for (const Row& row : {Row{6, 1, 6, 0.96875}, Row{8, 1, 8, 0.9921875}, Row{9, 2, 8, 0.9609375},
                         Row{12, 3, 10, 0.96142578}, Row{20, 6, 15, 0.95861053}}) {
    INFO(row.n);
    const std::optional<Interval> interval = estimate_median(ramp(row.n)).interval();
    REQUIRE(interval);
    CHECK(interval->low == row.low);
    CHECK(interval->high == row.high);
    CHECK(interval->coverage == Approx(row.coverage));
  }
  // The place k of the lower bound for every n from 6 on (David and Nagaraja, section 7.1; any
  // table of the sign test at 5 % two-sided has k - 1).
  std::size_t n = 6;
  for (const double k :
       {1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 5, 5, 5, 6, 6, 6, 7, 7, 8, 8, 8, 9, 9, 10}) {
    INFO(n);
    const std::optional<Interval> interval = estimate_median(ramp(n)).interval();
    REQUIRE(interval);
    CHECK(interval->low == k);
    CHECK(interval->high == static_cast<double>(n + 1) - k);
    ++n;
  }
  for (n = 1; n < 6; ++n) CHECK_FALSE(estimate_median(ramp(n)).interval());
  CHECK(estimate_median(ramp(9)).interval(0.99)->high == 9);
}

TEST_CASE("the Mann-Whitney distribution is that of the tables", "[statistics]") {
  // Of the 70 ways to mix four and four, 1, 1, 2, 3, 5 have U = 0 to 4.
  const std::vector<double> tails = mann_whitney_tails(4, 4);
  REQUIRE(tails.size() == 17);
  CHECK(tails[0] == Approx(1.0 / 70));
  CHECK(tails[1] == Approx(2.0 / 70));
  CHECK(tails[2] == Approx(4.0 / 70));
  CHECK(tails[4] == Approx(12.0 / 70));
  CHECK(tails[16] == Approx(1));
  CHECK(mann_whitney_tails(3, 7)[21] == Approx(1));
  // The tables of critical values, two-sided: the largest U that is significant.
  const auto critical = [](std::size_t m, std::size_t of_n, double alpha) {
    const std::vector<double> p = mann_whitney_tails(m, of_n);
    return std::count_if(p.begin(), p.end(), [&](double tail) { return 2 * tail <= alpha; }) - 1;
  };
  std::size_t n = 4;
  for (const int u : {0, 2, 5, 8, 13, 17, 23, 30, 37, 45, 55, 64, 75, 87, 99, 113, 127}) {
    INFO(n);
    CHECK(critical(n, n, 0.05) == u);
    ++n;
  }
  n = 5;
  for (const int u : {0, 2, 4, 7, 11, 16, 21, 27, 34, 42, 51, 60, 70, 81, 93, 105}) {
    INFO(n);
    CHECK(critical(n, n, 0.01) == u);
    ++n;
  }
  CHECK(critical(4, 8, 0.05) == 4);
  CHECK(critical(8, 4, 0.05) == 4);
  CHECK(critical(6, 10, 0.05) == 11);
  CHECK(critical(10, 20, 0.05) == 55);
}

TEST_CASE("a shift between two samples", "[statistics]") {
  const std::vector<double> a{1, 2, 3, 4}, b{11, 12, 13, 14};
  const Estimate shift = estimate_shift(a, b);
  CHECK(shift.center == 10);
  const std::optional<Interval> interval = shift.interval();
  REQUIRE(interval);
  CHECK(interval->low == 7);
  CHECK(interval->high == 13);
  CHECK(interval->coverage == Approx(1 - 2.0 / 70));
  CHECK_FALSE(
      estimate_shift(std::vector<double>{1, 2, 3}, std::vector<double>{1, 2, 3}).interval());
}

TEST_CASE("a shift in a published example", "[statistics]") {
  // Permeability of the human chorioamnion at term and at 12 to 26 weeks: Hollander and Wolfe,
  // "Nonparametric Statistical Methods", examples 4.1, 4.2 and 4.3.
  const std::vector<double> term{0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46};
  const std::vector<double> early{1.15, 0.88, 0.90, 0.74, 1.21};
  const Estimate shift = estimate_shift(term, early);
  CHECK(shift.center == Approx(-0.305));
  CHECK(shift.samples == 5);
  const std::optional<Interval> interval = shift.interval();
  REQUIRE(interval);
  CHECK(interval->low == Approx(-0.76));
  CHECK(interval->high == Approx(0.15));
  CHECK(interval->coverage == Approx(0.96).margin(0.0005));
}

TEST_CASE("Holm's procedure", "[statistics]") {
  const std::vector<double> adjusted = holm(std::vector<double>{0.01, 0.04, 0.03, 0.005});
  REQUIRE(adjusted.size() == 4);
  CHECK(adjusted[0] == Approx(0.03));
  CHECK(adjusted[1] == Approx(0.06));
  CHECK(adjusted[2] == Approx(0.06));
  CHECK(adjusted[3] == Approx(0.02));
  // Fifteen end points of a trial (Neuhaus and others 1992), the example of Benjamini and Hochberg,
  // Journal of the Royal Statistical Society B 57, 1995: the first three hold at 5 %.
  const std::vector<double> trial =
      holm(std::vector<double>{.0001, .0004, .0019, .0095, .0201, .0278, .0298, .0344, .0459, .3240,
                               .4262, .5719, .6528, .7590, 1});
  CHECK(trial[0] == Approx(0.0015));
  CHECK(trial[1] == Approx(0.0056));
  CHECK(trial[2] == Approx(0.0247));
  CHECK(trial[3] == Approx(0.1140));
  CHECK(trial[8] == Approx(7 * 0.0459));
  CHECK(trial[14] == 1);
  CHECK(holm(std::vector<double>{0.9, 0.8})[0] == 1);
  CHECK(holm({}).empty());
  CHECK(blocks_needed(1) == 6);
  CHECK(blocks_needed(2) == 7);
  CHECK(blocks_needed(6) == 8);
  CHECK(blocks_needed(7) == 9);
}

TEST_CASE("verdicts by where the interval lies", "[statistics]") {
  const auto verdict = [](double percent, double half, Better better = Better::less) {
    return judge(around(std::log1p(percent / 100), std::log1p(half / 100)), kTwo, better).verdict;
  };
  CHECK(verdict(5, 1) == Verdict::slower);
  CHECK(verdict(-5, 1) == Verdict::faster);
  CHECK(verdict(5, 1, Better::more) == Verdict::faster);
  CHECK(verdict(-5, 1, Better::more) == Verdict::slower);
  CHECK(verdict(0, 1) == Verdict::equivalent);
  CHECK(verdict(2, 1) == Verdict::none);
  CHECK(verdict(0, 5) == Verdict::none);
  const Judgement unsure = judge(around(0, std::log1p(0.05)), kTwo, Better::less);
  CHECK(*unsure.smallest_effect == Approx(1.02 * 1.05 - 1));
  CHECK(unsure.why == "could have seen 7.1 %");
  CHECK(*unsure.low == Approx(1 / 1.05));
  CHECK(*unsure.high == Approx(1.05));
  const Judgement few = judge(around(1, 0.01, 5), kTwo, Better::less);
  CHECK(few.verdict == Verdict::none);
  CHECK_FALSE(few.low);
  CHECK_FALSE(few.smallest_effect);
  CHECK(few.why == "too few blocks: 5");
}

TEST_CASE("among several, a verdict needs more", "[statistics]") {
  Judgement sure = judge(around(0.2, 0.01), kTwo, Better::less, 2);
  Judgement unsure = judge(around(0, 0.2), kTwo, Better::less, 2);
  sure.p = 0.02;
  Judgement* both[] = {&sure, &unsure};
  settle(both);
  CHECK(sure.verdict == Verdict::slower);
  CHECK(sure.p_holm == Approx(0.04));
  sure.p = 0.03;
  settle(both);
  CHECK(sure.verdict == Verdict::none);
  CHECK(sure.why == "slower alone, not among 2 comparisons");
  // Eight blocks and six comparisons: the widest interval is just enough.
  std::vector<Judgement> six(6, judge(around(0.2, 0.01), kTwo, Better::less, 6));
  std::vector<Judgement*> family;
  for (Judgement& one : six) family.push_back(&one);
  settle(family);
  for (const Judgement& one : six) CHECK(one.verdict == Verdict::slower);
}

TEST_CASE("delta grows with what two copies differ by", "[statistics]") {
  CHECK(delta_with(0.02, std::nullopt).apart == 0.02);
  CHECK(delta_with(0.02, Interval{-0.01, 0.01, 0.96}).apart == 0.02);
  const Delta wide = delta_with(0.02, Interval{-0.05, 0.07, 0.96});
  CHECK(wide.apart == Approx(std::expm1(0.06)));
  CHECK(wide.same == 0.02);
  // Noise never makes servers equal: 3 % is no longer a difference, and still not the same.
  CHECK(judge(around(0.03, 0.001), kTwo, Better::less).verdict == Verdict::slower);
  CHECK(judge(around(0.03, 0.001), wide, Better::less).verdict == Verdict::none);
  CHECK(judge(around(0.01, 0.001), wide, Better::less).verdict == Verdict::equivalent);
  CHECK_FALSE(copies_differ(around(0, 0.05), 0.02));
  CHECK_FALSE(copies_differ(around(0.005, 0.002), 0.02));
  CHECK(copies_differ(around(0.015, 0.002), 0.02));
  CHECK(copies_differ(around(-0.05, 0.04), 0.02));
}

TEST_CASE("precision is the width alone", "[statistics]") {
  const std::vector<Judgement> narrow(2, judge(around(0.3, 0.009), kTwo, Better::less));
  CHECK(precise(narrow, 0.01));
  CHECK_FALSE(precise(narrow, 0.008));
  CHECK_FALSE(precise(std::vector<Judgement>{judge(around(0, 0, 5), kTwo, Better::less)}, 0.01));
}

// ---- coverage -----------------------------------------------------------------------------------

TEST_CASE("intervals cover, whatever the distribution", "[statistics]") {
  for (const Law& law : kLaws) {
    for (const std::size_t n : {6, 8, 9, 12, 24}) {
      CAPTURE(law.name, n);
      CHECK(coverage(n, law.median, [&](auto& rng, bool) { return law.draw(rng); }) >=
            0.95 - kChance);
    }
  }
}

TEST_CASE("blocks that depend on each other cover less", "[statistics]") {
  // Autoregressive of first order, as a machine that drifts: stationary, variance 1.
  const auto drifting = [](double rho) {
    return coverage(8, 0, [rho, last = 0.0](auto& rng, bool begins) mutable {
      last = begins ? normal(rng) : rho * last + std::sqrt(1 - rho * rho) * normal(rng);
      return last;
    });
  };
  CHECK(drifting(0.2) >= 0.95);
  const double bad = drifting(0.8);
  CHECK(bad < 0.9);  // this is why servers are paired within a round
  CHECK(bad > 0.6);
}

TEST_CASE("the shift's intervals cover, whatever the distribution", "[statistics]") {
  for (const Law& law : kLaws) {
    for (const auto& [m, n] : {std::pair<std::size_t, std::size_t>{6, 6}, {6, 8}, {8, 12}}) {
      CAPTURE(law.name, m, n);
      CHECK(shift_coverage(m, n, law) >= 0.95 - kShiftChance);
    }
  }
}

TEST_CASE("a run that scatters three times as much costs the shift's intervals little",
          "[statistics]") {
  // The two then differ by more than a shift. Symmetric shapes keep nearly all of the coverage.
  for (const Law& law : {kLaws[0], kLaws[3]}) {
    CAPTURE(law.name);
    CHECK(shift_coverage(8, 8, law, 3) >= 0.92);
  }
}

TEST_CASE("to stop on precision does not make false verdicts", "[statistics]") {
  // Two equal servers beside the baseline, blocks from 7 on until both are within 1 %: noise so
  // that stopping early happens about as often as going on.
  std::mt19937_64 rng(99);
  int wrong = 0, early = 0, slower_by_less = 0;
  constexpr int kRuns = 1000;
  for (int run = 0; run < kRuns; ++run) {
    std::vector<std::vector<double>> values(2);
    const auto judged = [&](double shift, std::size_t of) {
      std::vector<double> moved = values[of];
      for (double& value : moved) value += shift;
      return judge(estimate_median(moved), kTwo, Better::less, 2);
    };
    for (std::size_t n = 1; n <= 21; ++n) {
      for (auto& one : values) one.push_back(0.008 * normal(rng));
      if (n < 7) continue;
      const std::vector<Judgement> now{judged(0, 0), judged(0, 1)};
      if (!precise(now, 0.01)) continue;
      if (n < 21) ++early;
      break;
    }
    const Verdict equal = judged(0, 0).verdict;
    if (equal == Verdict::slower || equal == Verdict::faster) ++wrong;
    // A true difference of just delta is the worst case: both verdicts are wrong then.
    if (judged(std::log1p(0.02), 1).verdict != Verdict::none) ++slower_by_less;
  }
  CHECK(early > kRuns / 4);
  CHECK(wrong == 0);
  CHECK(slower_by_less <= kRuns * 0.05 * 1.5);
}
