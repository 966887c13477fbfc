#include "harness/gbench.hpp"

#include <cmath>

#include "harness/result_record.hpp"
#include "harness/verdicts.hpp"

namespace echolab::harness {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kNsPerS = 1e9;

Json context(const RunRecord& run) {
  const nlohmann::json& env = run.environment;
  const auto fact = [&](const char* pointer, const Json& otherwise) -> Json {
    const nlohmann::json::json_pointer where(pointer);
    return env.contains(where) && !env[where].is_null() ? Json(env[where]) : otherwise;
  };
  return {{"date", run.started},
          {"executable", run.command.empty() ? "harness" : run.command.front()},
          {"num_cpus", fact("/machine/cpus_online", 0)},
          {"cpu_model", fact("/machine/cpu_model", "unknown")},
          {"kernel", fact("/kernel/release", "unknown")},
          {"library_build_type", fact("/build/type", "unknown") == "Debug" ? "debug" : "release"}};
}

const Metric& metric_of(std::optional<Judgement> Verdicts::*judgement) {
  for (const Metric& metric : verdict_metrics()) {
    if (metric.judgement == judgement) return metric;
  }
  return verdict_metrics().front();
}

}  // namespace

Json to_gbench(const RunRecord& run) {
  Json benchmarks = Json::array();
  std::size_t family = 0;
  for (const CellRecord& cell : run.cells) {
    for (const Result& result : cell.results) {
      if (!result.error.empty() || result.variant.ends_with(kAgain)) continue;
      const std::vector<double> cpu = block_values(result, metric_of(&Verdicts::cpu));
      // Requests per nanosecond.
      const std::vector<double> pace = block_values(result, metric_of(&Verdicts::throughput));
      if (cpu.empty() || cpu.size() != pace.size()) continue;
      const std::string name = result.variant + "/" + cell.shape.name();
      for (std::size_t i = 0; i < cpu.size(); ++i) {
        benchmarks.push_back({{"name", name},
                              {"family_index", family},
                              {"per_family_instance_index", 0},
                              {"run_name", name},
                              {"run_type", "iteration"},
                              {"repetitions", cpu.size()},
                              {"repetition_index", i},
                              {"threads", 1},
                              {"iterations", result.latency.count() / cpu.size()},
                              {"real_time", rounded(std::exp(-pace[i]))},
                              {"cpu_time", rounded(std::exp(cpu[i]))},
                              {"time_unit", "ns"},
                              {"items_per_second", rounded(std::exp(pace[i]) * kNsPerS)}});
        if (result.no_verdict.empty()) continue;
        benchmarks.back()["error_occurred"] = true;  // gates failed: not to be taken for good
        benchmarks.back()["error_message"] = result.no_verdict;
      }
      ++family;
    }
  }
  return {{"context", context(run)}, {"benchmarks", std::move(benchmarks)}};
}

}  // namespace echolab::harness
