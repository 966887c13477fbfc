// Puts what a benchmark of a server measured in the place of what Google Benchmark measured, which
// is this process waiting: cpu_time is the server's CPU time per request, real_time the time per
// request over all connections, as in `harness bench --export gbench`. The name is that of the row
// ("epoll/c64/s64/d1"), without the "/manual_time" that the library adds.
#pragma once

#include <benchmark/benchmark.h>

#include <vector>

namespace echolab::benchmarks {

// Counters by which a benchmark tells its times, in ns per iteration, and how many iterations there
// were: the library knows of one, since it wants the same number in all repetitions. The reporter
// takes them out, from aggregates as well, which the library makes of counters as it does of times.
inline constexpr const char* kRealTime = "echolab_real_ns";
inline constexpr const char* kCpuTime = "echolab_cpu_ns";
inline constexpr const char* kIterations = "echolab_iterations";

// Reports to another reporter, which must outlive it.
class Reporter final : public benchmark::BenchmarkReporter {
 public:
  explicit Reporter(BenchmarkReporter& to) : to_(to) {}
  bool ReportContext(const Context& context) override;
  void ReportRuns(const std::vector<Run>& runs) override;
  void Finalize() override { to_.Finalize(); }

 private:
  BenchmarkReporter& to_;
};

}  // namespace echolab::benchmarks
