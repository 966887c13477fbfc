#include "harness/calibration.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "harness/ratio.hpp"
#include "harness/trial.hpp"

namespace echolab::harness {
namespace {

// Long enough for a rate that is cut to a quarter and three quarters: a few hundred wake-ups.
constexpr Nanos kWarmUp{50'000'000};
constexpr Nanos kMeasured{200'000'000};

std::optional<double> peak(const Contender& contender, const CellShape& shape,
                           const BenchOptions& options, const StartOptions& start) {
  Trial trial(contender, shape, options.seed);
  try {
    trial.start(options.program, start);
    trial.connect();
    trial.warm_up(kWarmUp);
    const SliceRow row = trial.slice(kMeasured);
    trial.stop();
    return ratio(as_double(row.requests) * 1e9, as_double(row.elapsed_ns));
  } catch (const std::exception&) {
    trial.stop();
    return std::nullopt;
  }
}

}  // namespace

std::vector<Peak> calibrate(const BenchOptions& options, const StartOptions& start,
                            Progress& progress) {
  std::vector<Peak> peaks;
  const Plan& plan = options.plan;
  const auto measure = [&](const Contender& contender, const CellShape& shape) {
    if (Load::interrupted() || !impossible(contender, shape).empty()) return 0.0;
    return peak(contender, shape, options, start).value_or(0);
  };
  for (const Cell& cell : plan.expand()) {
    if (cell.shape.share == 0) continue;
    const CellShape closed{cell.shape.connections, cell.shape.size, 1, 0, 0};
    const bool known = std::any_of(peaks.begin(), peaks.end(), [&](const Peak& p) {
      return p.connections == closed.connections && p.size == closed.size;
    });
    if (known) continue;  // another share of the same
    const auto keep = [&](const std::string& name, double rate) {
      if (rate > 0) peaks.push_back({closed.connections, closed.size, name, rate});
    };
    const Contender responder{"raw-epoll", ""};
    std::optional<double> ceiling;
    for (const std::size_t i : cell.contenders) {
      const Contender& contender = plan.contenders[i];
      if (contender.again() || !options.variants[i].unavailable.empty()) continue;
      const double rate = measure(contender, closed);
      keep(contender.name, rate);
      if (contender.name == responder.name && contender.command.empty()) ceiling = rate;
    }
    keep(kGenerator, ceiling ? *ceiling : measure(responder, closed));
    const std::optional<double> lowest = plan.lowest_peak(peaks, closed.connections, closed.size);
    progress.say(fmt::format("c{}/s{}: the lowest closed-loop peak is {}", closed.connections,
                             closed.size,
                             lowest ? fmt::format("{:.0f} requests/s", *lowest)
                                    : "unknown: no server could be measured"));
  }
  return peaks;
}

}  // namespace echolab::harness
