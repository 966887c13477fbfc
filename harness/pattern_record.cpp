#include "harness/pattern_record.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "harness/pattern_servers.hpp"

namespace echolab::harness {
namespace {

using Json = nlohmann::ordered_json;

// What the project sets itself, for the two models that are made for many connections.
constexpr double kThroughput = 0.9;  // of nginx's, at least
constexpr double kFanout = 1.5;      // times the control's CPU, at most
constexpr double kIdleBytes = 4096;  // of user memory for one that waits, at most
constexpr double kIdleSwitches = 0;  // between heartbeats, of all that wait together

bool has_targets(std::string_view contender) {
  return contender == "epoll" || contender == "io_uring";
}

template <class Row, class Value>
std::vector<double> values(const Row& row, Value value) {
  std::vector<double> all;
  for (const auto& slice : row.slices) all.push_back(value(slice));
  return all;
}

template <class Rows>
const auto* find(const Rows& rows, std::string_view contender) {
  const auto found = std::find_if(rows.begin(), rows.end(),
                                  [&](const auto& row) { return row.contender == contender; });
  return found == rows.end() ? nullptr : &*found;
}

// Slices of one round stand close together in time: those are compared.
template <class Row, class Value>
std::optional<Spread> paired(const Row* baseline, const Row& row, Value value) {
  if (baseline == nullptr) return std::nullopt;
  std::vector<double> ratios;
  for (const auto& slice : row.slices) {
    for (const auto& other : baseline->slices) {
      if (other.round == slice.round && value(other) > 0) {
        ratios.push_back(value(slice) / value(other));
      }
    }
  }
  return spread_of(std::move(ratios));
}

double per_request_us(const PlaintextRow::Slice& slice) {
  return static_cast<double>(slice.server_cpu_ns) / 1000 /
         static_cast<double>(std::max<std::uint64_t>(slice.requests, 1));
}

std::optional<double> bytes_each(const IdleRow& row) {
  if (!row.error.empty() || row.connections == 0) return std::nullopt;
  return (static_cast<double>(row.bytes_after) - static_cast<double>(row.bytes_before)) /
         row.connections;
}

std::optional<double> switches_per_s(const IdleRow& row) {
  if (!row.error.empty() || row.watched_ns == 0) return std::nullopt;
  return static_cast<double>(row.switches) * 1e9 / static_cast<double>(row.watched_ns);
}

double rounded(double value) {
  constexpr double kDigits = 1e6;
  return std::round(value * kDigits) / kDigits;
}

Json number(const std::optional<double>& value) {
  return value ? Json(rounded(*value)) : Json();
}

Json spread(const std::optional<Spread>& s) {
  if (!s) return {};
  return {{"median", rounded(s->median)}, {"low", rounded(s->low)}, {"high", rounded(s->high)}};
}

std::optional<double> median(const std::optional<Spread>& s) {
  return s ? std::optional(s->median) : std::nullopt;
}

struct Target {
  std::string what;
  std::string contender;
  std::string bound;  // "at least", "at most"
  double limit = 0;
  std::optional<double> value;
  [[nodiscard]] bool met() const {
    return value && (bound == "at least" ? *value >= limit : *value <= limit);
  }
};

std::vector<Target> targets_of(const PatternRecord& run) {
  std::vector<Target> targets;
  for (const PlaintextCell& cell : run.plaintext) {
    for (const PlaintextRow& row : cell.rows) {
      if (!has_targets(row.contender)) continue;
      targets.push_back({fmt::format("throughput of GET /plaintext, in nginx's, wrk on {} CPUs",
                                     cell.load_on == "same" ? "the same" : "other"),
                         row.contender, "at least", kThroughput,
                         median(throughput_ratio(cell, row))});
    }
  }
  for (const FanoutCell& cell : run.fanout) {
    for (const FanoutRow& row : cell.rows) {
      if (!has_targets(row.contender)) continue;
      targets.push_back({fmt::format("CPU per {} delivery, in bare sends", cell.transport),
                         row.contender, "at most", kFanout, median(cpu_ratio(cell, row))});
    }
  }
  for (const IdleRow& row : run.idle) {
    if (!has_targets(row.contender)) continue;
    targets.push_back({fmt::format("bytes per idle {}", row.kind), row.contender, "at most",
                       kIdleBytes, bytes_each(row)});
    targets.push_back({fmt::format("context switches per second of all idle {}", row.kind),
                       row.contender, "at most", kIdleSwitches, switches_per_s(row)});
  }
  return targets;
}

// ---- JSON --------------------------------------------------------------------------------------

Json json_of(const PlaintextCell& cell, const PlaintextRow& row) {
  Json json{{"contender", row.contender},
            {"error", row.error},
            {"head_bytes", row.head_bytes},
            {"answer_bytes", row.answer_bytes}};
  json["requests_per_s"] =
      spread(spread_of(values(row, [](const auto& s) { return s.requests_per_s; })));
  json["cpu_us_per_request"] = spread(spread_of(values(row, per_request_us)));
  json["throughput_ratio"] = spread(throughput_ratio(cell, row));
  json["cpu_ratio"] = spread(cpu_ratio(cell, row));
  Json slices = Json::array();
  for (const auto& slice : row.slices) {
    slices.push_back({{"round", slice.round},
                      {"requests", slice.requests},
                      {"requests_per_s", rounded(slice.requests_per_s)},
                      {"server_cpu_ns", slice.server_cpu_ns}});
  }
  json["slices"] = std::move(slices);
  return json;
}

Json json_of(const FanoutCell& cell, const FanoutRow& row, unsigned subscribers) {
  Json json{
      {"contender", row.contender}, {"error", row.error}, {"message_bytes", row.message_bytes}};
  json["cpu_us_per_delivery"] = spread(spread_of(values(row, [&](const auto& s) {
    return static_cast<double>(s.server_cpu_ns) / 1000 / subscribers;
  })));
  json["cpu_ratio"] = spread(cpu_ratio(cell, row));
  Json slices = Json::array();
  for (const auto& slice : row.slices) {
    slices.push_back({{"round", slice.round}, {"server_cpu_ns", slice.server_cpu_ns}});
  }
  json["slices"] = std::move(slices);
  return json;
}

Json json_of(const IdleRow& row) {
  return {{"contender", row.contender},
          {"kind", row.kind},
          {"error", row.error},
          {"connections", row.connections},
          {"bytes_before", row.bytes_before},
          {"bytes_after", row.bytes_after},
          {"bytes_per_connection", number(bytes_each(row))},
          {"watched_ns", row.watched_ns},
          {"switches", row.switches},
          {"switches_per_s", number(switches_per_s(row))},
          {"server_cpu_ns", row.server_cpu_ns}};
}

// ---- tables ------------------------------------------------------------------------------------

std::string cell_of(const std::optional<Spread>& s, int digits) {
  if (!s) return "–";
  return fmt::format("{:.{}f} ({:.{}f}–{:.{}f})", s->median, digits, s->low, digits, s->high,
                     digits);
}

std::string cell_of(const std::optional<double>& value, int digits) {
  return value ? fmt::format("{:.{}f}", *value, digits) : "–";
}

void add_plaintext(std::string& out, const PatternRecord& run, const PlaintextCell& cell) {
  out += fmt::format("\n## GET /plaintext, {} connections, wrk on {} CPU\n\n", run.connections,
                     cell.load_on == "same" ? "the server's own" : "another");
  out +=
      "| server | requests/s | × nginx | CPU µs per request | × nginx | bytes of an answer |\n"
      "| :-- | --: | --: | --: | --: | --: |\n";
  for (const PlaintextRow& row : cell.rows) {
    const auto rate = spread_of(values(row, [](const auto& s) { return s.requests_per_s; }));
    out += fmt::format("| `{}` | {} | {} | {} | {} | {} |\n", row.contender, cell_of(rate, 0),
                       cell_of(throughput_ratio(cell, row), 2),
                       cell_of(spread_of(values(row, per_request_us)), 2),
                       cell_of(cpu_ratio(cell, row), 2), row.answer_bytes);
  }
}

void add_fanout(std::string& out, const PatternRecord& run, const FanoutCell& cell) {
  out += fmt::format("\n## One {}-byte message to {} subscribers by {}\n\n", run.payload_bytes,
                     run.subscribers, cell.transport == "sse" ? "SSE" : "WebSocket");
  out +=
      "| server | CPU µs per delivery | × bare send | bytes on the wire |\n"
      "| :-- | --: | --: | --: |\n";
  for (const FanoutRow& row : cell.rows) {
    const auto cost = spread_of(values(row, [&](const auto& s) {
      return static_cast<double>(s.server_cpu_ns) / 1000 / run.subscribers;
    }));
    out += fmt::format("| `{}` | {} | {} | {} |\n", row.contender, cell_of(cost, 2),
                       cell_of(cpu_ratio(cell, row), 2), row.message_bytes);
  }
}

void add_idle(std::string& out, const PatternRecord& run) {
  out +=
      "\n## What waits\n\n"
      "| server | kind | connections | user memory each, bytes | context switches/s of all |\n"
      "| :-- | :-- | --: | --: | --: |\n";
  for (const IdleRow& row : run.idle) {
    out += fmt::format("| `{}` | {} | {} | {} | {} |\n", row.contender, row.kind, row.connections,
                       cell_of(bytes_each(row), 0), cell_of(switches_per_s(row), 1));
  }
}

void add_errors(std::string& out, const PatternRecord& run) {
  const auto add = [&](const auto& rows, std::string_view where) {
    for (const auto& row : rows) {
      if (!row.error.empty()) {
        out += fmt::format("\n`{}`, {}: {}\n", row.contender, where, row.error);
      }
    }
  };
  for (const PlaintextCell& cell : run.plaintext) add(cell.rows, "GET /plaintext");
  for (const FanoutCell& cell : run.fanout) add(cell.rows, cell.transport);
  for (const IdleRow& row : run.idle) add(std::vector{row}, row.kind);
}

}  // namespace

std::optional<Spread> spread_of(std::vector<double> all) {
  if (all.empty()) return std::nullopt;
  std::sort(all.begin(), all.end());
  const auto at = [&](double share) {
    const double place = share * static_cast<double>(all.size() - 1);
    const auto low = static_cast<std::size_t>(place);
    const std::size_t high = std::min(low + 1, all.size() - 1);
    return all[low] + (all[high] - all[low]) * (place - static_cast<double>(low));
  };
  return Spread{at(0.5), at(0.25), at(0.75)};
}

std::optional<Spread> throughput_ratio(const PlaintextCell& cell, const PlaintextRow& row) {
  return paired(find(cell.rows, kNginx), row, [](const auto& s) { return s.requests_per_s; });
}

std::optional<Spread> cpu_ratio(const PlaintextCell& cell, const PlaintextRow& row) {
  return paired(find(cell.rows, kNginx), row, per_request_us);
}

std::optional<Spread> cpu_ratio(const FanoutCell& cell, const FanoutRow& row) {
  return paired(find(cell.rows, kControl), row,
                [](const auto& s) { return static_cast<double>(s.server_cpu_ns); });
}

Json to_json(const PatternRecord& run) {
  Json json{{"schema", "echolab.patterns"}, {"version", kPatternsVersion},
            {"command", run.command},       {"seed", run.seed},
            {"started", run.started},       {"duration_s", rounded(run.duration_s)},
            {"partial", run.partial},       {"quick", run.quick}};
  json["environment"] = run.environment;
  json["placement"] = {
      {"server_cpus", run.server_cpus}, {"client_cpus", run.client_cpus}, {"why", run.placement}};
  json["connections"] = run.connections;
  json["subscribers"] = run.subscribers;
  json["payload_bytes"] = run.payload_bytes;
  json["plaintext"] = Json::array();
  for (const PlaintextCell& cell : run.plaintext) {
    Json rows = Json::array();
    for (const PlaintextRow& row : cell.rows) rows.push_back(json_of(cell, row));
    json["plaintext"].push_back({{"load_on", cell.load_on}, {"rows", std::move(rows)}});
  }
  json["fanout"] = Json::array();
  for (const FanoutCell& cell : run.fanout) {
    Json rows = Json::array();
    for (const FanoutRow& row : cell.rows) rows.push_back(json_of(cell, row, run.subscribers));
    json["fanout"].push_back({{"transport", cell.transport}, {"rows", std::move(rows)}});
  }
  json["idle"] = Json::array();
  for (const IdleRow& row : run.idle) json["idle"].push_back(json_of(row));
  json["targets"] = Json::array();
  for (const Target& target : targets_of(run)) {
    json["targets"].push_back({{"what", target.what},
                               {"contender", target.contender},
                               {"bound", target.bound},
                               {"limit", target.limit},
                               {"value", number(target.value)},
                               {"met", target.met()}});
  }
  return json;
}

std::string table_of(const PatternRecord& run) {
  std::string out = "# Patterns\n";
  if (run.partial) out += "\nInterrupted: what is here was measured, the rest was not.\n";
  out += fmt::format("\n{} Medians; in brackets the middle half of the slices.\n", run.placement);
  for (const PlaintextCell& cell : run.plaintext) add_plaintext(out, run, cell);
  for (const FanoutCell& cell : run.fanout) add_fanout(out, run, cell);
  if (!run.idle.empty()) add_idle(out, run);
  const auto targets = targets_of(run);
  if (!targets.empty()) {
    out +=
        "\n## Targets\n\n| what | server | target | measured | |\n| :-- | :-- | --: | --: | :-- "
        "|\n";
  }
  for (const Target& target : targets) {
    out +=
        fmt::format("| {} | `{}` | {} {:g} | {} | {} |\n", target.what, target.contender,
                    target.bound, target.limit, cell_of(target.value, target.limit > 100 ? 0 : 2),
                    target.met() ? "met" : "MISSED");
  }
  add_errors(out, run);
  return out;
}

bool any_error(const PatternRecord& run) {
  const auto bad = [](const auto& row) { return !row.error.empty(); };
  const auto any = [&](const auto& rows) { return std::any_of(rows.begin(), rows.end(), bad); };
  return any(run.idle) ||
         std::any_of(run.plaintext.begin(), run.plaintext.end(),
                     [&](const auto& cell) { return any(cell.rows); }) ||
         std::any_of(run.fanout.begin(), run.fanout.end(),
                     [&](const auto& cell) { return any(cell.rows); });
}

}  // namespace echolab::harness
