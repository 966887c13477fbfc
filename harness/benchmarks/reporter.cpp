#include "harness/benchmarks/reporter.hpp"

#include <optional>

namespace echolab::benchmarks {
namespace {

using Run = benchmark::BenchmarkReporter::Run;

std::optional<double> take(Run& run, const char* counter) {
  const auto found = run.counters.find(counter);
  if (found == run.counters.end()) return std::nullopt;
  const double value = found->second.value;
  run.counters.erase(found);
  return value;
}

void restate(Run& run) {
  run.run_name.time_type.clear();
  const std::optional<double> iterations = take(run, kIterations);
  const std::optional<double> real = take(run, kRealTime), cpu = take(run, kCpuTime);
  if (!iterations || !real || !cpu) return;  // not of a server, or nothing was measured
  // An aggregate's iterations are repetitions.
  if (run.run_type == Run::RT_Iteration) {
    run.iterations = static_cast<benchmark::IterationCount>(*iterations);
  }
  // Run holds the seconds of all iterations; a coefficient of variation is a plain share.
  const bool time = run.aggregate_unit == benchmark::kTime;
  const double scale = time ? static_cast<double>(run.iterations) / 1e9 : 1;
  run.real_accumulated_time = *real * scale;
  run.cpu_accumulated_time = *cpu * scale;
}

}  // namespace

bool Reporter::ReportContext(const Context& context) {
  to_.SetOutputStream(&GetOutputStream());
  to_.SetErrorStream(&GetErrorStream());
  return to_.ReportContext(context);
}

void Reporter::ReportRuns(const std::vector<Run>& runs) {
  std::vector<Run> restated = runs;
  for (Run& run : restated) restate(run);
  to_.ReportRuns(restated);
}

}  // namespace echolab::benchmarks
