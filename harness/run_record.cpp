#include "harness/run_record.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "harness/json_reader.hpp"
#include "harness/result_record.hpp"
#include "harness/sweep_record.hpp"

namespace echolab::harness {
namespace {

using Json = nlohmann::ordered_json;

// ---- the run ------------------------------------------------------------------------------------

Json write_peaks(const std::vector<Peak>& peaks) {
  Json out = Json::array();
  for (const Peak& peak : peaks) {
    out.push_back({{"connections", peak.connections},
                   {"size_bytes", peak.size},
                   {"variant", peak.variant},
                   {"requests_per_s", rounded(peak.rate)}});
  }
  return out;
}

Json write_plan(const Plan& plan) {
  Json contenders = Json::array();
  for (const Contender& c : plan.contenders) contenders.push_back(c.name);
  return {{"contenders", std::move(contenders)},
          {"baseline", plan.baseline},
          {"connections", plan.connections},
          {"sizes_bytes", plan.sizes},
          {"depths", plan.depths},
          {"rates_per_s", plan.rates},
          {"rate_shares", plan.shares},
          {"peaks", write_peaks(plan.peaks)},
          {"slices", plan.slices},
          {"slice_ns", plan.slice.count()},
          {"warm_up_slices", plan.warm_up},
          {"blocks", plan.blocks},
          {"most_blocks", plan.most_blocks},
          {"cap_ns", plan.cap.count()},
          {"threads", plan.threads},
          {"filter", plan.filter},
          {"quick", plan.quick},
          {"sweep", write_goal(plan.sweep)}};
}

template <class T>
std::vector<T> narrow(const JsonReader& in, std::uint64_t at_most) {
  std::vector<T> out;
  for (const JsonReader& item : in.items()) out.push_back(static_cast<T>(item.whole(at_most)));
  return out;
}

// Version 1 started its servers once.
Plan read_plan(const JsonReader& in, std::uint64_t version) {
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
  plan.blocks = plan.most_blocks = 1;
  if (version > 1) {
    plan.blocks = static_cast<unsigned>(in["blocks"].whole(kMaxBlocks));
    plan.most_blocks = static_cast<unsigned>(in["most_blocks"].whole(kMaxBlocks));
    plan.shares = in["rate_shares"].numbers();
    plan.calibrated = !plan.shares.empty();
    for (const JsonReader& peak : in["peaks"].items()) {
      plan.peaks.push_back({static_cast<unsigned>(peak["connections"].whole(kMaxConnections)),
                            peak["size_bytes"].whole(kMaxSize), peak["variant"].text(),
                            peak["requests_per_s"].number()});
    }
    plan.cap = std::chrono::nanoseconds(in["cap_ns"].whole(INT64_MAX));
  }
  plan.threads = static_cast<unsigned>(in["threads"].whole(UINT32_MAX));
  plan.filter = in["filter"].text();
  plan.quick = in["quick"].flag();
  if (in.has("sweep")) plan.sweep = read_goal(in["sweep"]);
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

Json seam_number(const std::optional<double>& value) {
  return value ? Json(rounded(*value)) : Json(nullptr);
}

Json write_seams(const std::vector<Seam>& seams) {
  Json out = Json::array();
  for (const Seam& seam : seams) {
    out.push_back({{"backend", seam.backend},
                   {"control", seam.control},
                   {"blocks", seam.blocks},
                   {"ratio", seam_number(seam.ratio)},
                   {"low", seam_number(seam.low)},
                   {"high", seam_number(seam.high)},
                   {"why", seam.why}});
  }
  return out;
}

std::vector<Seam> read_seams(const JsonReader& in) {
  std::vector<Seam> seams;
  for (const JsonReader& seam : in.items()) {
    seams.push_back({seam["backend"].text(), seam["control"].text(),
                     seam["blocks"].whole(kMaxBlocks), seam["ratio"].number_or_null(),
                     seam["low"].number_or_null(), seam["high"].number_or_null(),
                     seam["why"].text()});
  }
  return seams;
}

CellRecord read_cell(const JsonReader& in, std::uint64_t version) {
  CellRecord cell;
  cell.shape.connections = static_cast<unsigned>(in["connections"].whole(kMaxConnections));
  cell.shape.size = in["size_bytes"].whole(kMaxSize);
  cell.shape.depth = static_cast<unsigned>(in["depth"].whole(kMaxDepth));
  cell.shape.rate = in["rate_per_s"].number();
  for (const JsonReader& r : in["results"].items()) {
    cell.results.push_back(read_result(r, cell.shape.rate > 0, version));
  }
  if (in.has("seams")) cell.seams = read_seams(in["seams"]);
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

BlockRow::BlockRow(std::uint32_t number, const Histogram& latency)
    : block(number),
      samples(latency.count()),
      p50_ns(latency.supported_quantile(0.5, kSamplesBeyond)),
      p99_ns(latency.supported_quantile(0.99, kSamplesBeyond)) {
}

const Result* CellRecord::row(const std::string& variant) const {
  const auto found = std::find_if(results.begin(), results.end(),
                                  [&](const Result& r) { return r.variant == variant; });
  return found == results.end() ? nullptr : &*found;
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
                     {"seams", write_seams(cell.seams)},
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
          {"cells", std::move(cells)},
          {"sweeps", write_sweeps(run.sweeps)}};
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
  if (version == 0) throw RecordError("version: there is no version 0");
  RunRecord run;
  run.version = version;
  run.command = in["command"].texts();
  run.seed = in["seed"].whole();
  run.started = in["started"].text();
  run.duration_s = in["duration_s"].number();
  run.partial = in["partial"].flag();
  run.environment = in["environment"].object();
  run.plan = read_plan(in["plan"], version);
  const JsonReader placement = in["placement"];
  run.placement = {placement["asked"].text(), placement["used"].text(),
                   narrow<int>(placement["server_cpus"], INT32_MAX),
                   narrow<int>(placement["client_cpus"], INT32_MAX), placement["why"].text()};
  run.steal = {in["steal"]["tick_ns"].whole(), in["steal"]["median_share"].number()};
  for (const JsonReader& v : in["variants"].items()) run.variants.push_back(read_variant(v));
  for (const JsonReader& c : in["cells"].items()) run.cells.push_back(read_cell(c, version));
  if (in.has("sweeps")) run.sweeps = read_sweeps(in["sweeps"]);
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
