#include "harness/run_record.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "harness/json_reader.hpp"

namespace echolab::harness {
namespace {

using Json = nlohmann::ordered_json;

// Six digits are finer than anything measured here, and keep the file small enough to commit.
double rounded(double value) {
  return std::strtod(fmt::format("{:.6g}", value).c_str(), nullptr);
}

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

Json write_slices(const std::vector<SliceRow>& rows, bool open_loop) {
  Json out = Json::object();
  const auto write = [&](const Column& column) {
    Json values = Json::array();
    for (const SliceRow& row : rows) values.push_back(column.get(row));
    out[column.name] = std::move(values);
  };
  for (const Column& column : kColumns) write(column);
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

Json write_window(const Window& window) {
  Json out = Json::object();
  for (const WindowField& field : kWindowFields) out[field.name] = window.*field.value;
  out["counters"] = window.counters ? Json(*window.counters) : Json(nullptr);
  out["batches"] = window.batches ? Json(*window.batches) : Json(nullptr);
  return out;
}

Window read_window(const JsonReader& in) {
  Window window;
  for (const WindowField& field : kWindowFields) window.*field.value = in[field.name].whole();
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
    summary.*field.value = in[field.name].number_or_null();
  }
  const JsonReader kinds = in["syscalls_by_kind"];
  for (const auto& [name, value] : kinds.object().items()) {
    summary.syscalls_by_kind[name] = JsonReader(value, kinds.path() + "." + name).number();
  }
  return summary;
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
  return {{"variant", result.variant},
          {"error", result.error},
          {"no_verdict", result.no_verdict},
          {"gates", std::move(gates)},
          {"summary", write_summary(result.summary)},
          {"window", write_window(result.window)},
          {"slices", write_slices(result.slices, open_loop)},
          {"latency", write_histogram(result.latency)},
          {"raw", result.raw ? write_histogram(*result.raw) : Json(nullptr)}};
}

Result read_result(const JsonReader& in, bool open_loop) {
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
  result.window = read_window(in["window"]);
  result.slices = read_slices(in["slices"], open_loop);
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
  return result;
}

// ---- the run ------------------------------------------------------------------------------------

Json write_plan(const Plan& plan) {
  Json contenders = Json::array();
  for (const Contender& c : plan.contenders) contenders.push_back(c.name);
  return {{"contenders", std::move(contenders)},
          {"baseline", plan.baseline},
          {"connections", plan.connections},
          {"sizes_bytes", plan.sizes},
          {"depths", plan.depths},
          {"rates_per_s", plan.rates},
          {"slices", plan.slices},
          {"slice_ns", plan.slice.count()},
          {"warm_up_slices", plan.warm_up},
          {"threads", plan.threads},
          {"filter", plan.filter},
          {"quick", plan.quick}};
}

template <class T>
std::vector<T> narrow(const JsonReader& in, std::uint64_t at_most) {
  std::vector<T> out;
  for (const JsonReader& item : in.items()) out.push_back(static_cast<T>(item.whole(at_most)));
  return out;
}

Plan read_plan(const JsonReader& in) {
  Plan plan;
  for (const std::string& name : in["contenders"].texts()) plan.contenders.push_back({name, ""});
  plan.baseline = in["baseline"].text();
  plan.connections = narrow<unsigned>(in["connections"], kMaxConnections);
  plan.sizes = narrow<std::size_t>(in["sizes_bytes"], kMaxSize);
  plan.depths = narrow<unsigned>(in["depths"], kMaxDepth);
  plan.rates = in["rates_per_s"].numbers();
  plan.slices = static_cast<unsigned>(in["slices"].whole(kMaxSlices));
  plan.slice =
      std::chrono::nanoseconds(in["slice_ns"].whole(static_cast<std::uint64_t>(kMaxSlice.count())));
  plan.warm_up = static_cast<unsigned>(in["warm_up_slices"].whole(kMaxSlices));
  plan.threads = static_cast<unsigned>(in["threads"].whole(UINT32_MAX));
  plan.filter = in["filter"].text();
  plan.quick = in["quick"].flag();
  return plan;
}

VariantRecord read_variant(const JsonReader& in) {
  VariantRecord variant{in["name"].text(), in["command"].text(), in["unavailable"].text(), {}};
  for (const JsonReader& f : in["features"].items()) {
    variant.features.push_back(
        {f["name"].text(), f["asked"].flag(), f["granted"].flag(), f["note"].text()});
  }
  return variant;
}

CellRecord read_cell(const JsonReader& in) {
  CellRecord cell;
  cell.shape.connections = static_cast<unsigned>(in["connections"].whole(kMaxConnections));
  cell.shape.size = in["size_bytes"].whole(kMaxSize);
  cell.shape.depth = static_cast<unsigned>(in["depth"].whole(kMaxDepth));
  cell.shape.rate = in["rate_per_s"].number();
  for (const JsonReader& r : in["results"].items()) {
    cell.results.push_back(read_result(r, cell.shape.rate > 0));
  }
  refuse_twins(in["results"], cell.results, [](const Result& r) { return r.variant; });
  return cell;
}

// One member a line, but lists of plain values, and deep inside also objects of them, on one line.
void write_text(const Json& value, std::size_t indent, std::string& out) {
  constexpr std::size_t kDeep = 5;  // within a result
  const bool flat =
      std::all_of(value.begin(), value.end(), [](const Json& item) { return item.is_primitive(); });
  if (value.is_primitive() || value.empty() || (flat && (value.is_array() || indent >= kDeep))) {
    // Texts may come from servers and command lines: bytes that are not UTF-8 are replaced.
    out += value.dump(-1, ' ', false, Json::error_handler_t::replace);
    return;
  }
  out += value.is_array() ? "[\n" : "{\n";
  bool first = true;
  for (const auto& item : value.items()) {
    if (!first) out += ",\n";
    first = false;
    out.append(indent + 1, ' ');
    if (value.is_object()) {
      write_text(Json(item.key()), indent, out);
      out += ": ";
    }
    write_text(item.value(), indent + 1, out);
  }
  out += '\n';
  out.append(indent, ' ');
  out += value.is_array() ? ']' : '}';
}

}  // namespace

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
  }
  return "?";
}

const std::vector<SummaryField>& summary_fields() {
#define ECHOLAB_FIELD(name) \
  { #name, &Summary::name }
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
                                                ECHOLAB_FIELD(client_cpu_us_per_request),
                                                ECHOLAB_FIELD(voluntary_switches_per_request),
                                                ECHOLAB_FIELD(involuntary_switches_per_request),
                                                ECHOLAB_FIELD(syscalls_per_request),
                                                ECHOLAB_FIELD(wakeups_per_request),
                                                ECHOLAB_FIELD(events_per_wakeup),
                                                ECHOLAB_FIELD(kib_per_connection),
                                                ECHOLAB_FIELD(achieved_share),
                                                ECHOLAB_FIELD(steal_share),
                                                ECHOLAB_FIELD(ratio_cpu),
                                                ECHOLAB_FIELD(ratio_throughput),
                                                ECHOLAB_FIELD(ratio_p50),
                                                ECHOLAB_FIELD(ratio_p99)};
#undef ECHOLAB_FIELD
  return fields;
}

bool RunRecord::failed() const {
  for (const CellRecord& cell : cells) {
    for (const Result& result : cell.results) {
      if (!result.error.empty()) return true;
    }
  }
  return false;
}

nlohmann::ordered_json to_json(const RunRecord& run) {
  Json variants = Json::array();
  for (const VariantRecord& v : run.variants) {
    Json features = Json::array();
    for (const FeatureRecord& f : v.features) {
      features.push_back(
          {{"name", f.name}, {"asked", f.asked}, {"granted", f.granted}, {"note", f.note}});
    }
    variants.push_back({{"name", v.name},
                        {"command", v.command},
                        {"unavailable", v.unavailable},
                        {"features", std::move(features)}});
  }
  Json cells = Json::array();
  for (const CellRecord& cell : run.cells) {
    Json results = Json::array();
    for (const Result& result : cell.results) {
      results.push_back(write_result(result, cell.shape.rate > 0));
    }
    cells.push_back({{"connections", cell.shape.connections},
                     {"size_bytes", cell.shape.size},
                     {"depth", cell.shape.depth},
                     {"rate_per_s", cell.shape.rate},
                     {"results", std::move(results)}});
  }
  return {{"schema", kRunSchema},
          {"version", kRunVersion},
          {"command", run.command},
          {"seed", run.seed},
          {"started", run.started},
          {"duration_s", rounded(run.duration_s)},
          {"partial", run.partial},
          {"environment", run.environment},
          {"plan", write_plan(run.plan)},
          {"placement",
           {{"asked", run.placement.asked},
            {"used", run.placement.used},
            {"server_cpus", run.placement.server_cpus},
            {"client_cpus", run.placement.client_cpus},
            {"why", run.placement.why}}},
          {"steal",
           {{"tick_ns", run.steal.tick_ns}, {"median_share", rounded(run.steal.median_share)}}},
          {"variants", std::move(variants)},
          {"cells", std::move(cells)}};
}

std::string to_text(const RunRecord& run) {
  std::string out;
  write_text(to_json(run), 0, out);
  return out + "\n";
}

RunRecord run_from_json(const nlohmann::json& document) try {
  const JsonReader in(document);
  if (in["schema"].text() != kRunSchema) {
    throw RecordError(
        fmt::format("schema: this is a '{}', not a '{}'", in["schema"].text(), kRunSchema));
  }
  const std::uint64_t version = in["version"].whole();
  if (version > kRunVersion) {
    throw RecordError(
        fmt::format("version: {} is newer than this program, which reads up to {}: "
                    "use the echolab that wrote it",
                    version, kRunVersion));
  }
  if (version < kRunVersion) throw RecordError("version: there is no version 0");
  RunRecord run;
  run.command = in["command"].texts();
  run.seed = in["seed"].whole();
  run.started = in["started"].text();
  run.duration_s = in["duration_s"].number();
  run.partial = in["partial"].flag();
  run.environment = in["environment"].object();
  run.plan = read_plan(in["plan"]);
  const JsonReader placement = in["placement"];
  run.placement = {placement["asked"].text(), placement["used"].text(),
                   narrow<int>(placement["server_cpus"], INT32_MAX),
                   narrow<int>(placement["client_cpus"], INT32_MAX), placement["why"].text()};
  run.steal = {in["steal"]["tick_ns"].whole(), in["steal"]["median_share"].number()};
  for (const JsonReader& v : in["variants"].items()) run.variants.push_back(read_variant(v));
  for (const JsonReader& c : in["cells"].items()) run.cells.push_back(read_cell(c));
  refuse_twins(in["variants"], run.variants, [](const VariantRecord& v) { return v.name; });
  refuse_twins(in["cells"], run.cells, [](const CellRecord& c) { return c.shape.name(); });
  for (Contender& contender : run.plan.contenders) {
    for (const VariantRecord& v : run.variants) {
      if (v.name == contender.name) contender.command = v.command;
    }
  }
  return run;
} catch (const JsonError& error) {
  throw RecordError(error.what());
}

}  // namespace echolab::harness
