#include "harness/result_record.hpp"

#include <fmt/format.h>

#include <cstdlib>

#include "harness/verdicts.hpp"

namespace echolab::harness {
namespace {

using Json = nlohmann::ordered_json;

Json number_or_null(const std::optional<double>& value) {
  return value ? Json(rounded(*value)) : Json(nullptr);
}

// Columns of the slices; an open loop has all, a closed loop only the first ones.
struct Column {
  const char* name;
  std::uint64_t (*get)(const SliceRow&);
  void (*set)(SliceRow&, std::uint64_t);
};
#define ECHOLAB_COLUMN(field)                                            \
  {                                                                      \
#field, [](const SliceRow& r) { return std::uint64_t{r.field}; },      \
        [](SliceRow& r, std::uint64_t v) {                                 \
          r.field = static_cast<decltype(r.field)>(v);                     \
        } \
  }
constexpr Column kColumns[] = {
    ECHOLAB_COLUMN(block),         ECHOLAB_COLUMN(round),           ECHOLAB_COLUMN(position),
    ECHOLAB_COLUMN(requests),      ECHOLAB_COLUMN(elapsed_ns),      ECHOLAB_COLUMN(server_cpu_ns),
    ECHOLAB_COLUMN(client_cpu_ns), ECHOLAB_COLUMN(latency_mean_ns), ECHOLAB_COLUMN(p50_ns),
    ECHOLAB_COLUMN(p99_ns),        ECHOLAB_COLUMN(max_ns),          ECHOLAB_COLUMN(steal_ticks)};
// Since the first files of this version, which lack them.
constexpr Column kAddedColumns[] = {ECHOLAB_COLUMN(idle_ticks), ECHOLAB_COLUMN(client_delay_ns)};
constexpr Column kOpenLoopColumns[] = {ECHOLAB_COLUMN(due), ECHOLAB_COLUMN(skipped)};
#undef ECHOLAB_COLUMN

// The window's plain numbers.
struct WindowField {
  const char* name;
  std::uint64_t Window::*value;
};
constexpr WindowField kWindowFields[] = {{"requests", &Window::requests},
                                         {"cpu_ns", &Window::cpu_ns},
                                         {"user_ns", &Window::user_ns},
                                         {"system_ns", &Window::system_ns},
                                         {"workers_ns", &Window::workers_ns},
                                         {"voluntary_switches", &Window::voluntary_switches},
                                         {"involuntary_switches", &Window::involuntary_switches},
                                         {"threads", &Window::threads},
                                         {"rss_before_bytes", &Window::rss_before_bytes},
                                         {"rss_connected_bytes", &Window::rss_connected_bytes}};

// ---- histograms: a positive number is the count of the next bucket, -n skips n empty ones
// --------

Json write_histogram(const Histogram& h) {
  Json buckets = Json::array();
  std::size_t next = 0;
  for (const auto& [index, count] : h.buckets()) {
    if (index > next) buckets.push_back(-static_cast<std::int64_t>(index - next));
    buckets.push_back(count);
    next = index + 1;
  }
  return {{"count", h.count()},
          {"min_ns", h.min()},
          {"max_ns", h.max()},
          {"sum_ns", static_cast<std::uint64_t>(h.sum())},
          {"buckets", std::move(buckets)}};
}

Histogram read_histogram(const JsonReader& in) {
  const std::uint64_t count = in["count"].whole();
  const std::uint64_t min = in["min_ns"].whole();
  const std::uint64_t max = in["max_ns"].whole();
  const std::uint64_t sum = in["sum_ns"].whole();
  std::vector<std::pair<std::size_t, std::uint64_t>> buckets;
  std::size_t next = 0;
  for (const std::int64_t value : in["buckets"].integers()) {
    const std::uint64_t skip = value < 0 ? 0 - static_cast<std::uint64_t>(value) : 0;
    if (skip >= Histogram::kBuckets - next) in["buckets"].fail("goes beyond the last bucket");
    next += skip;
    if (value >= 0) buckets.emplace_back(next++, static_cast<std::uint64_t>(value));
  }
  Histogram h;
  try {
    if (!buckets.empty()) {
      h = Histogram::restore(buckets, min, max, static_cast<double>(sum));
    }
  } catch (const std::invalid_argument& error) {
    in.fail(error.what());
  }
  if (h.count() != count) in["count"].fail("differs from the sum of the buckets");
  return h;
}

// ---- one contender in one cell ------------------------------------------------------------------

Json write_slices(const Result& result, bool open_loop) {
  const std::vector<SliceRow>& rows = result.slices;
  Json out = Json::object();
  const auto write = [&](const Column& column) {
    Json values = Json::array();
    for (const SliceRow& row : rows) values.push_back(column.get(row));
    out[column.name] = std::move(values);
  };
  for (const Column& column : kColumns) write(column);
  if (result.idle_known) {
    for (const Column& column : kAddedColumns) write(column);
  }
  Json inflight = Json::array(), gates = Json::array();
  for (const SliceRow& row : rows) {
    inflight.push_back(rounded(row.inflight_mean));
    gates.push_back(static_cast<unsigned>(row.gate));
  }
  out["inflight_mean"] = std::move(inflight);
  out["gate"] = std::move(gates);
  if (open_loop) {
    for (const Column& column : kOpenLoopColumns) write(column);
  }
  return out;
}

std::vector<SliceRow> read_slices(const JsonReader& in, bool open_loop) {
  const std::vector<double> inflight = in["inflight_mean"].numbers();
  const std::vector<std::uint64_t> gates = in["gate"].wholes();
  std::vector<SliceRow> rows(gates.size());
  const auto same_length = [&](const char* name, std::size_t length) {
    if (length != rows.size()) in[name].fail("has another length than the column 'gate'");
  };
  const auto read = [&](const Column& column) {
    const std::vector<std::uint64_t> values = in[column.name].wholes();
    same_length(column.name, values.size());
    for (std::size_t i = 0; i < rows.size(); ++i) column.set(rows[i], values[i]);
  };
  for (const Column& column : kColumns) read(column);
  if (in.has(kAddedColumns[0].name)) {
    for (const Column& column : kAddedColumns) read(column);
  }
  if (open_loop) {
    for (const Column& column : kOpenLoopColumns) read(column);
  }
  same_length("inflight_mean", inflight.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (gates[i] >= kGates) in["gate"].fail(fmt::format("{} is not a known gate", gates[i]));
    rows[i].inflight_mean = inflight[i];
    rows[i].gate = static_cast<Gate>(gates[i]);
  }
  return rows;
}

Json write_blocks(const std::vector<BlockRow>& blocks) {
  const auto or_null = [](const std::optional<std::uint64_t>& ns) {
    return ns ? Json(*ns) : Json(nullptr);
  };
  Json out = Json::array();
  for (const BlockRow& row : blocks) {
    out.push_back({{"block", row.block},
                   {"samples", row.samples},
                   {"p50_ns", or_null(row.p50_ns)},
                   {"p99_ns", or_null(row.p99_ns)}});
  }
  return out;
}

std::vector<BlockRow> read_blocks(const JsonReader& in) {
  const auto or_null = [](const JsonReader& ns) -> std::optional<std::uint64_t> {
    if (ns.null()) return std::nullopt;
    return ns.whole();
  };
  std::vector<BlockRow> out;
  for (const JsonReader& row : in.items()) {
    BlockRow block;
    block.block = static_cast<std::uint32_t>(row["block"].whole(UINT32_MAX));
    block.samples = row["samples"].whole();
    block.p50_ns = or_null(row["p50_ns"]);
    block.p99_ns = or_null(row["p99_ns"]);
    out.push_back(block);
  }
  return out;
}

Json write_window(const Window& window) {
  Json out = Json::object();
  for (const WindowField& field : kWindowFields) out[field.name] = window.*field.value;
  out["run_delay_ns"] = window.run_delay_ns ? Json(*window.run_delay_ns) : Json(nullptr);
  Json memory = Json::array();
  for (const MemoryPoint& point : window.memory) {
    memory.push_back({{"connections", point.connections},
                      {"rss_bytes", point.rss_bytes},
                      {"tcp_sockets", point.tcp_sockets},
                      {"tcp_memory_bytes", point.tcp_memory_bytes}});
  }
  out["memory"] = std::move(memory);
  out["counters"] = window.counters ? Json(*window.counters) : Json(nullptr);
  out["batches"] = window.batches ? Json(*window.batches) : Json(nullptr);
  return out;
}

Window read_window(const JsonReader& in) {
  Window window;
  for (const WindowField& field : kWindowFields) window.*field.value = in[field.name].whole();
  if (in.has("run_delay_ns") && !in["run_delay_ns"].null()) {
    window.run_delay_ns = in["run_delay_ns"].whole();
  }
  if (in.has("memory")) {
    for (const JsonReader& point : in["memory"].items()) {
      window.memory.push_back({point["connections"].whole(), point["rss_bytes"].whole(),
                               point["tcp_sockets"].whole(), point["tcp_memory_bytes"].whole()});
    }
  }
  if (const JsonReader counters = in["counters"]; !counters.null()) {
    window.counters.emplace();
    for (const auto& [name, value] : counters.object().items()) {
      window.counters->emplace(name, JsonReader(value, counters.path() + "." + name).whole());
    }
  }
  if (const JsonReader batches = in["batches"]; !batches.null()) window.batches = batches.wholes();
  return window;
}

Json write_summary(const Summary& summary) {
  Json out = Json::object();
  for (const SummaryField& field : summary_fields()) {
    out[field.name] = number_or_null(summary.*field.value);
  }
  Json kinds = Json::object();
  for (const auto& [name, value] : summary.syscalls_by_kind) kinds[name] = rounded(value);
  out["syscalls_by_kind"] = std::move(kinds);
  return out;
}

Summary read_summary(const JsonReader& in) {
  Summary summary;
  for (const SummaryField& field : summary_fields()) {
    if (field.added && !in.has(field.name)) continue;
    summary.*field.value = in[field.name].number_or_null();
    if ((summary.*field.value).value_or(0) < 0)
      in[field.name].fail("expected a number, not negative");
  }
  const JsonReader kinds = in["syscalls_by_kind"];
  for (const auto& [name, value] : kinds.object().items()) {
    summary.syscalls_by_kind[name] = JsonReader(value, kinds.path() + "." + name).number();
  }
  return summary;
}

Json write_verdicts(const Verdicts& verdicts) {
  Json out = Json::object();
  for (const Metric& metric : verdict_metrics()) {
    const std::optional<Judgement>& one = verdicts.*metric.judgement;
    if (!one) {
      out[metric.name] = nullptr;
      continue;
    }
    out[metric.name] = {{"verdict", name_of(one->verdict)},
                        {"blocks", one->blocks},
                        {"ratio", rounded(one->ratio)},
                        {"low", number_or_null(one->low)},
                        {"high", number_or_null(one->high)},
                        {"delta", rounded(one->delta)},
                        {"p", rounded(one->p)},
                        {"p_holm", rounded(one->p_holm)},
                        {"smallest_effect", number_or_null(one->smallest_effect)},
                        {"why", one->why}};
  }
  return out;
}

Verdicts read_verdicts(const JsonReader& in) {
  Verdicts verdicts;
  for (const Metric& metric : verdict_metrics()) {
    const JsonReader member = in[metric.name];
    if (member.null()) continue;
    Judgement one;
    const std::string name = member["verdict"].text();
    const std::optional<Verdict> verdict = verdict_of(name);
    if (!verdict) member["verdict"].fail(fmt::format("'{}' is not a known verdict", name));
    one.verdict = *verdict;
    one.blocks = member["blocks"].whole(kMaxBlocks);
    one.ratio = member["ratio"].number();
    one.low = member["low"].number_or_null();
    one.high = member["high"].number_or_null();
    one.delta = member["delta"].number();
    one.p = member["p"].number();
    one.p_holm = member["p_holm"].number();
    one.smallest_effect = member["smallest_effect"].number_or_null();
    one.why = member["why"].text();
    verdicts.*metric.judgement = one;
  }
  return verdicts;
}

}  // namespace

double rounded(double value) {
  return std::strtod(fmt::format("{:.6g}", value).c_str(), nullptr);
}

const char* name_of(Gate gate) {
  switch (gate) {
    case Gate::kept:
      return "kept";
    case Gate::little:
      return "little";
    case Gate::client:
      return "client";
    case Gate::achieved:
      return "achieved";
    case Gate::steal:
      return "steal";
    case Gate::empty:
      return "empty";
    case Gate::busy:
      return "busy";
  }
  return "?";
}

const std::vector<SummaryField>& summary_fields() {
#define ECHOLAB_FIELD(name) \
  { #name, &Summary::name, false }
#define ECHOLAB_ADDED_FIELD(name) \
  { #name, &Summary::name, true }
  static const std::vector<SummaryField> fields{ECHOLAB_FIELD(requests),
                                                ECHOLAB_FIELD(measured_s),
                                                ECHOLAB_FIELD(requests_per_s),
                                                ECHOLAB_FIELD(mb_per_s),
                                                ECHOLAB_FIELD(mean_us),
                                                ECHOLAB_FIELD(p50_us),
                                                ECHOLAB_FIELD(p90_us),
                                                ECHOLAB_FIELD(p99_us),
                                                ECHOLAB_FIELD(p999_us),
                                                ECHOLAB_FIELD(max_us),
                                                ECHOLAB_FIELD(raw_p50_us),
                                                ECHOLAB_FIELD(raw_p90_us),
                                                ECHOLAB_FIELD(raw_p99_us),
                                                ECHOLAB_FIELD(raw_p999_us),
                                                ECHOLAB_FIELD(raw_max_us),
                                                ECHOLAB_FIELD(server_cpu_us_per_request),
                                                ECHOLAB_FIELD(user_us_per_request),
                                                ECHOLAB_FIELD(system_us_per_request),
                                                ECHOLAB_FIELD(workers_us_per_request),
                                                ECHOLAB_ADDED_FIELD(run_delay_us_per_request),
                                                ECHOLAB_FIELD(client_cpu_us_per_request),
                                                ECHOLAB_FIELD(voluntary_switches_per_request),
                                                ECHOLAB_FIELD(involuntary_switches_per_request),
                                                ECHOLAB_FIELD(syscalls_per_request),
                                                ECHOLAB_FIELD(wakeups_per_request),
                                                ECHOLAB_FIELD(events_per_wakeup),
                                                ECHOLAB_FIELD(kib_per_connection),
                                                ECHOLAB_ADDED_FIELD(tcp_kib_per_connection),
                                                ECHOLAB_FIELD(achieved_share),
                                                ECHOLAB_FIELD(steal_share),
                                                ECHOLAB_ADDED_FIELD(others_share),
                                                ECHOLAB_FIELD(ratio_cpu),
                                                ECHOLAB_FIELD(ratio_throughput),
                                                ECHOLAB_FIELD(ratio_p50),
                                                ECHOLAB_FIELD(ratio_p99)};
#undef ECHOLAB_ADDED_FIELD
#undef ECHOLAB_FIELD
  return fields;
}

Json write_result(const Result& result, bool open_loop) {
  Json gates = Json::array();
  for (const GateResult& gate : result.gates) {
    gates.push_back({{"gate", gate.gate},
                     {"limit", rounded(gate.limit)},
                     {"worst", number_or_null(gate.worst)},
                     {"dropped", gate.dropped},
                     {"passed", gate.passed}});
  }
  Json out{{"variant", result.variant},
           {"error", result.error},
           {"no_verdict", result.no_verdict},
           {"gates", std::move(gates)},
           {"summary", write_summary(result.summary)},
           {"verdicts", write_verdicts(result.verdicts)},
           {"window", write_window(result.window)},
           {"slices", write_slices(result, open_loop)},
           {"latency", write_histogram(result.latency)},
           {"raw", result.raw ? write_histogram(*result.raw) : Json(nullptr)}};
  // An early file stays without them; where nothing was kept, there are none to say so of.
  if (!result.blocks.empty()) out["blocks"] = write_blocks(result.blocks);
  return out;
}

Result read_result(const JsonReader& in, bool open_loop, std::uint64_t version) {
  Result result;
  result.variant = in["variant"].text();
  result.error = in["error"].text();
  result.no_verdict = in["no_verdict"].text();
  for (const JsonReader& gate : in["gates"].items()) {
    result.gates.push_back({gate["gate"].text(), gate["limit"].number(),
                            gate["worst"].number_or_null(), gate["dropped"].whole(),
                            gate["passed"].flag()});
  }
  result.summary = read_summary(in["summary"]);
  if (version > 1) result.verdicts = read_verdicts(in["verdicts"]);
  result.window = read_window(in["window"]);
  result.slices = read_slices(in["slices"], open_loop);
  result.idle_known = in["slices"].has(kAddedColumns[0].name);
  result.latency = read_histogram(in["latency"]);
  if (const JsonReader raw = in["raw"]; !raw.null()) result.raw = read_histogram(raw);
  if (open_loop != result.raw.has_value()) {
    in["raw"].fail("an open loop has one, a closed loop has null");
  }
  std::uint64_t requests = 0;
  for (const SliceRow& row : result.slices) {
    if (row.gate == Gate::kept) requests += row.requests;
  }
  if (requests != result.latency.count()) {
    in["latency"].fail(fmt::format("holds {} samples, its kept slices {} requests",
                                   result.latency.count(), requests));
  }
  if (!in.has("blocks")) return result;
  result.blocks = read_blocks(in["blocks"]);
  std::uint64_t samples = 0;
  for (const BlockRow& row : result.blocks) samples += row.samples;
  if (samples != requests) {
    in["blocks"].fail(
        fmt::format("hold {} samples, its kept slices {} requests", samples, requests));
  }
  return result;
}

}  // namespace echolab::harness
