// What the patterns' benchmark has measured: results/NAME/patterns.json (schema echolab.patterns,
// results/patterns.schema.json) and the tables made from it.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace echolab::harness {

inline constexpr int kPatternsVersion = 1;

// GET /plaintext under wrk.
struct PlaintextRow {
  struct Slice {
    unsigned round = 0;
    std::uint64_t requests = 0;
    double requests_per_s = 0;
    std::uint64_t server_cpu_ns = 0;
  };
  std::string contender;
  std::string error;             // what broke it; empty if nothing did
  std::size_t head_bytes = 0;    // of one answer
  std::size_t answer_bytes = 0;  // head and body
  std::vector<Slice> slices;
};
struct PlaintextCell {
  std::string load_on;  // "same": wrk runs on the server's CPUs, "split": on others
  std::vector<PlaintextRow> rows;
};

// One message to many subscribers.
struct FanoutRow {
  struct Slice {
    unsigned round = 0;
    std::uint64_t server_cpu_ns = 0;
  };
  std::string contender;
  std::string error;
  std::size_t message_bytes = 0;  // on the wire, to each subscriber
  std::vector<Slice> slices;
};
struct FanoutCell {
  std::string transport;  // "sse", "websocket"
  std::vector<FanoutRow> rows;
};

// What waits and hears nothing.
struct IdleRow {
  std::string contender;
  std::string kind;  // "sse", "websocket", "long_poll"
  std::string error;
  unsigned connections = 0;
  std::uint64_t bytes_before = 0, bytes_after = 0;  // anonymous memory of the server, resident
  std::uint64_t watched_ns = 0;
  std::uint64_t switches = 0;  // voluntary and not, while it was watched
  std::uint64_t server_cpu_ns = 0;
};

struct PatternRecord {
  std::vector<std::string> command;
  std::uint64_t seed = 0;
  std::string started;  // UTC
  double duration_s = 0;
  bool partial = false;
  bool quick = false;
  nlohmann::json environment;
  std::vector<int> server_cpus, client_cpus;
  std::string placement;  // one line
  unsigned connections = 0, subscribers = 0, payload_bytes = 0;
  std::vector<PlaintextCell> plaintext;
  std::vector<FanoutCell> fanout;
  std::vector<IdleRow> idle;
};

// In brackets: the middle half of the slices.
struct Spread {
  double median = 0, low = 0, high = 0;
};
std::optional<Spread> spread_of(std::vector<double>);  // nothing: no values

// By name, of rows of one cell, the ratio to the baseline's slice of the same round.
std::optional<Spread> throughput_ratio(const PlaintextCell&, const PlaintextRow&);
std::optional<Spread> cpu_ratio(const PlaintextCell&, const PlaintextRow&);
std::optional<Spread> cpu_ratio(const FanoutCell&, const FanoutRow&);

nlohmann::ordered_json to_json(const PatternRecord&);
std::string table_of(const PatternRecord&);  // Markdown
[[nodiscard]] bool any_error(const PatternRecord&);

}  // namespace echolab::harness
