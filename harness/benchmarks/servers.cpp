#include "harness/benchmarks/servers.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include "harness/benchmarks/reporter.hpp"
#include "harness/client_socket.hpp"
#include "harness/commands.hpp"
#include "harness/json_reader.hpp"
#include "harness/progress.hpp"

namespace echolab::benchmarks {
namespace {

using namespace harness;

// What the library is told that a run took, in seconds: more than any --benchmark_min_time, so that
// it does not ask for the same again with more iterations. The reporter has the real times.
constexpr double kEnough = 1e6;
constexpr std::string_view kAnyNumber = "=N";  // ends a variant that takes a number
constexpr const char* kRaw = "raw-";
constexpr double kNsPerUs = 1e3;

// One cell in one block of slices that last for `seconds` together, as --quick does it.
Plan plan_for(std::vector<Contender> contenders, const CellShape& shape, double seconds) {
  Plan plan;
  plan.baseline = contenders.front().name;
  plan.contenders = std::move(contenders);
  plan.connections = {shape.connections};
  plan.sizes = {shape.size};
  plan.depths = {shape.depth};
  const double slices = std::ceil(seconds / std::chrono::duration<double>(plan.slice).count());
  plan.slices = static_cast<unsigned>(std::clamp<double>(slices, 1, kMaxSlices));
  plan.blocks = plan.most_blocks = 1;
  plan.quick = true;
  return plan;
}

// A figure that could not be had is left out.
void count(benchmark::State& state, const char* name, const std::optional<double>& value,
           double factor = 1) {
  if (value) state.counters[name] = *value * factor;
}

void report(benchmark::State& state, const Result& result) {
  const Summary& s = result.summary;
  for (auto _ : state) state.SetIterationTime(kEnough);
  count(state, kIterations, s.requests);
  count(state, kRealTime, *s.measured_s / *s.requests, 1e9);
  count(state, kCpuTime, s.server_cpu_us_per_request, kNsPerUs);
  count(state, "items_per_second", s.requests_per_s);
  count(state, "bytes_per_second", s.mb_per_s, 1e6);
  count(state, "p50_us", s.p50_us);
  count(state, "p99_us", s.p99_us);
  count(state, "syscalls", s.syscalls_per_request);
  count(state, "client_cpu_ns", s.client_cpu_us_per_request, kNsPerUs);
  if (!result.no_verdict.empty()) state.SetLabel("no verdict: " + result.no_verdict);
}

}  // namespace

Servers::Servers(ServerSettings settings)
    : settings_(std::move(settings)), program_(sibling_program("echo-server")) {
  const nlohmann::json document = catalogue(program_);
  for (const JsonReader& v : JsonReader(document)["variants"].items()) {
    variants_.push_back({{v["name"].text(), ""}, v["unavailable"].text()});
  }
  for (const char* model : {"epoll", "io_uring"}) {
    const std::string name = std::string(kRaw) + model;
    const std::string path = sibling_program(name);
    const bool there = ::access(path.c_str(), X_OK) == 0;
    variants_.push_back(
        {{name, fmt::format("'{}' {{port}}", path)},
         there ? "" : fmt::format("{} has not been built: build the target raw-controls", name)});
  }
  Plan all;
  all.contenders.clear();
  for (const Contender& c : settings_.more) variants_.push_back({c, ""});
  for (const Variant& v : variants_) all.contenders.push_back(v.contender);
  static_cast<void>(
      all.expand());  // refuses names that are given twice, and commands without {port}
}

std::vector<Entry> Servers::entries() {
  std::vector<Entry> out;
  for (const Variant& v : variants_) add_cells(out, v);
  const auto named = [this](const std::string& name) {
    return std::find_if(variants_.begin(), variants_.end(),
                        [&](const Variant& v) { return v.contender.name == name; });
  };
  for (const Variant& v : variants_) {
    const auto raw = named(kRaw + v.contender.name);
    if (raw != variants_.end()) add_seam(out, v, *raw);
  }
  return out;
}

void Servers::add_cells(std::vector<Entry>& out, const Variant& variant) {
  for (const CellShape& shape : Plan{}.shapes()) {
    Variant v = variant;
    std::string& name = v.contender.name;
    // As many workers as connections: with fewer some would never be served.
    if (name.ends_with(kAnyNumber) && !v.contender.foreign()) {
      name.replace(name.size() - 1, 1, std::to_string(shape.connections));
    }
    out.push_back({name + "/" + shape.name(),
                   [this, v, shape](benchmark::State& state) { measure(state, {v}, shape); },
                   true});
  }
}

void Servers::add_seam(std::vector<Entry>& out, const Variant& variant, const Variant& raw) {
  for (const CellShape& shape : Plan{}.shapes()) {
    out.push_back({fmt::format("seam/{}/{}", variant.contender.name, shape.name()),
                   [this, variant, raw, shape](benchmark::State& state) {
                     measure(state, {raw, variant}, shape);
                   },
                   true});
  }
}

const Preflight& Servers::prepare() {
  if (!preflight_) preflight_ = preflight(settings_.place, Plan{}.threads);
  return *preflight_;
}

void Servers::fail(benchmark::State& state, const std::string& why) {
  ++failed_;
  state.SkipWithError(why.c_str());
}

void Servers::measure(benchmark::State& state, const std::vector<Variant>& variants,
                      const CellShape& shape) try {
  BenchOptions options;
  std::vector<Contender> contenders;
  for (const Variant& v : variants) {
    if (!v.unavailable.empty()) {
      ++unavailable_;
      state.SkipWithError(
          fmt::format("{}: not available here: {}", v.contender.name, v.unavailable).c_str());
      return;
    }
    contenders.push_back(v.contender);
    options.variants.push_back({v.contender.name, v.contender.command, "", {}});
  }
  options.plan = plan_for(contenders, shape, settings_.min_time_s);
  options.place = settings_.place;
  options.seed = settings_.seed + runs_++;
  options.program = program_;
  // Also for the servers, which inherit the limit.
  allow_connections(shape.connections * static_cast<unsigned>(variants.size()));
  Progress progress = Progress::silent();
  const RunRecord run = run_bench(options, prepare(), progress, [](const RunRecord&) {});
  for (const VariantRecord& v : run.variants) {
    if (v.unavailable.empty()) continue;
    ++unavailable_;
    state.SkipWithError(v.unavailable.c_str());
    return;
  }
  if (run.cells.empty()) return fail(state, "nothing was measured in the time that it may take");
  const std::vector<Result>& results = run.cells.front().results;
  for (const Result& result : results) {
    if (!result.error.empty()) return fail(state, result.error);
    if (!result.summary.requests) {
      return fail(state, fmt::format("{}: no slice counts: {}", result.variant, result.no_verdict));
    }
  }
  const Result& result = results.back();
  if (results.size() > 1) {
    const double raw = *results.front().summary.server_cpu_us_per_request * kNsPerUs;
    const std::optional<double> ratio = result.summary.ratio_cpu;  // paired within rounds
    if (!ratio) return fail(state, "no slice counts of both servers in one round");
    state.counters["raw_cpu_ns"] = raw;
    state.counters["seam_ratio"] = *ratio;
    state.counters["seam_ns"] = raw * (*ratio - 1);
  }
  report(state, result);
  ++measured_;
} catch (const std::exception& error) {
  fail(state, error.what());
}

int Servers::exit_status() const {
  if (failed_ > 0) return kExitFailed;
  return unavailable_ > 0 && measured_ == 0 ? kExitUnavailable : kExitOk;
}

}  // namespace echolab::benchmarks
