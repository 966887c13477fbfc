#include "harness/sweep_record.hpp"

#include <fmt/format.h>

#include <array>

#include "harness/result_record.hpp"

namespace echolab::harness {
namespace {

constexpr std::array kSloNames = {"met", "missed", "unknown", "failed"};

template <class T>
nlohmann::ordered_json or_null(const std::optional<T>& value) {
  return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
}

Slo read_slo(const JsonReader& in) {
  const std::string name = in.text();
  for (std::size_t i = 0; i < kSloNames.size(); ++i) {
    if (name == kSloNames[i]) return static_cast<Slo>(i);
  }
  in.fail(fmt::format("'{}' is not a known outcome", name));
}

}  // namespace

const char* name_of(Slo slo) {
  return kSloNames[static_cast<std::size_t>(slo)];
}

nlohmann::ordered_json write_goal(const std::optional<SweepGoal>& goal) {
  if (!goal) return nullptr;
  return {{"percentile", goal->percentile}, {"limit_ns", goal->limit.count()}};
}

std::optional<SweepGoal> read_goal(const JsonReader& in) {
  if (in.null()) return std::nullopt;
  return SweepGoal{in["percentile"].number(),
                   std::chrono::nanoseconds(in["limit_ns"].whole(INT64_MAX))};
}

nlohmann::ordered_json write_sweeps(const std::vector<SweepRecord>& sweeps) {
  using Json = nlohmann::ordered_json;
  Json out = Json::array();
  for (const SweepRecord& sweep : sweeps) {
    Json results = Json::array(), steps = Json::array();
    for (const SweepResult& r : sweep.results) {
      results.push_back({{"variant", r.variant},
                         {"highest_rate_per_s", or_null(r.highest_rate_per_s)},
                         {"lowest_missed_rate_per_s", or_null(r.lowest_missed_rate_per_s)},
                         {"why", r.why}});
    }
    for (const SweepStep& s : sweep.steps) {
      steps.push_back({{"rate_per_s", s.rate_per_s},
                       {"variant", s.variant},
                       {"outcome", name_of(s.slo)},
                       {"percentile_ns", or_null(s.percentile_ns)},
                       {"blocks_met", s.blocks_met},
                       {"blocks", s.blocks},
                       {"why", s.why}});
    }
    out.push_back({{"connections", sweep.connections},
                   {"size_bytes", sweep.size},
                   {"percentile", sweep.percentile},
                   {"limit_ns", sweep.limit_ns},
                   {"results", std::move(results)},
                   {"steps", std::move(steps)}});
  }
  return out;
}

std::vector<SweepRecord> read_sweeps(const JsonReader& in) {
  std::vector<SweepRecord> out;
  for (const JsonReader& one : in.items()) {
    SweepRecord sweep;
    sweep.connections = static_cast<unsigned>(one["connections"].whole(kMaxConnections));
    sweep.size = one["size_bytes"].whole(kMaxSize);
    sweep.percentile = one["percentile"].number();
    sweep.limit_ns = one["limit_ns"].whole(INT64_MAX);
    for (const JsonReader& r : one["results"].items()) {
      sweep.results.push_back({r["variant"].text(), r["highest_rate_per_s"].number_or_null(),
                               r["lowest_missed_rate_per_s"].number_or_null(), r["why"].text()});
    }
    for (const JsonReader& s : one["steps"].items()) {
      SweepStep step{s["rate_per_s"].number(),
                     s["variant"].text(),
                     read_slo(s["outcome"]),
                     std::nullopt,
                     s["blocks_met"].whole(kMaxBlocks),
                     s["blocks"].whole(kMaxBlocks),
                     s["why"].text()};
      if (const JsonReader ns = s["percentile_ns"]; !ns.null()) step.percentile_ns = ns.whole();
      sweep.steps.push_back(std::move(step));
    }
    out.push_back(std::move(sweep));
  }
  return out;
}

}  // namespace echolab::harness
