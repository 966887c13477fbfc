// A run in memory, and as run.json (schema "echolab.run", results/run.schema.json, explained in
// results/README.md). Everything that a statistic needs is in it: every slice, dropped ones too,
// and the merged histograms; the summary can be computed again from the rest.
//
// Units are in the names: ns and bytes are whole numbers, per-request figures are microseconds.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "harness/histogram.hpp"
#include "harness/plan.hpp"
#include "harness/statistics.hpp"

namespace echolab::harness {

inline constexpr const char* kRunSchema = "echolab.run";
inline constexpr unsigned kRunVersion = 2;  // grows when an old reader would misread a new file

// Why a slice does not count. The numbers are written to run.json: never reuse one.
enum class Gate : std::uint8_t {
  kept = 0,
  little = 1,    // closed loop: requests in flight disagree with rate x latency (Little's law)
  client = 2,    // open loop: the generator had no CPU time to spare, so it measured itself
  achieved = 3,  // open loop: requests were skipped
  steal = 4,     // the hypervisor took the CPU away
  empty = 5,     // no request completed
  busy = 6,      // something else ran on our CPUs
};
inline constexpr std::size_t kGates = 7;
const char* name_of(Gate);

struct SliceRow {
  std::uint32_t block = 0;     // which start of the servers
  std::uint32_t round = 0;     // slices of one round stand close together in time: pair them
  std::uint32_t position = 0;  // place within the round; repeats come last
  std::uint64_t requests = 0;
  std::uint64_t elapsed_ns = 0;
  std::uint64_t server_cpu_ns = 0;  // all threads, exited ones and kernel workers included
  std::uint64_t client_cpu_ns = 0;
  std::uint64_t latency_mean_ns = 0;
  std::uint64_t p50_ns = 0;
  std::uint64_t p99_ns = 0;
  std::uint64_t max_ns = 0;
  double inflight_mean = 0;
  std::uint64_t steal_ticks = 0;      // of the CPUs used; one tick is StealRecord::tick_ns
  std::uint64_t idle_ticks = 0;       // the same of the time that nobody used
  std::uint64_t client_delay_ns = 0;  // the generator could run and had no CPU; 0: not known here
  Gate gate = Gate::kept;
  std::uint64_t due = 0;      // open loop only
  std::uint64_t skipped = 0;  // open loop only
};

// The latency of one block's kept slices together. Slices alone have too few requests for a p99.
struct BlockRow {
  // Beyond a percentile of one block. Fewer than for one that is printed: it is one of several
  // values of which the median and its interval are taken, which know how it varies, and 20 leave
  // no bias that shows: the rank is off by at most 1 in 2000.
  static constexpr double kSamplesBeyond = 20;

  std::uint32_t block = 0;
  std::uint64_t samples = 0;
  std::optional<std::uint64_t> p50_ns, p99_ns;  // null: too few samples beyond it

  BlockRow() = default;
  BlockRow(std::uint32_t number, const Histogram& latency);
};

// Memory at one count of connections, of a server that has echoed a byte on each and nothing else.
struct MemoryPoint {
  std::uint64_t connections = 0;
  std::uint64_t rss_bytes = 0;         // of the server
  std::uint64_t tcp_sockets = 0;       // of the whole system, as the next: /proc/net/sockstat
  std::uint64_t tcp_memory_bytes = 0;  // queued in sockets, in pages; both ends are here
};

// What the server consumed from after the warm-up to after the last slice, dropped slices included.
// Divide by `requests`, which counts the same stretch.
struct Window {
  std::uint64_t requests = 0;
  std::uint64_t cpu_ns = 0;
  std::uint64_t user_ns = 0;  // the split is sampled by the kernel's clock tick
  std::uint64_t system_ns = 0;
  std::uint64_t workers_ns = 0;  // io_uring kernel threads, part of cpu_ns
  std::uint64_t voluntary_switches = 0;
  std::uint64_t involuntary_switches = 0;
  std::optional<std::uint64_t> run_delay_ns;  // its threads could run and had no CPU; null: unknown
  std::uint64_t threads = 0;                  // of the server, with all connections open
  std::uint64_t rss_before_bytes = 0;         // started, nobody connected
  std::uint64_t rss_connected_bytes = 0;      // all connected and warm
  std::vector<MemoryPoint> memory;  // two of them, before verification; none: too few connections
  std::optional<std::map<std::string, std::uint64_t>> counters;  // the server's own; null: foreign
  std::optional<std::vector<std::uint64_t>> batches;  // waits that returned [2^i, 2^(i+1)) events
};

// Absent: could not be measured, or too few samples to print. Never a zero instead.
struct Summary {
  std::optional<double> requests, measured_s, requests_per_s, mb_per_s;
  std::optional<double> mean_us, p50_us, p90_us, p99_us, p999_us, max_us;
  std::optional<double> raw_p50_us, raw_p90_us, raw_p99_us, raw_p999_us, raw_max_us;
  std::optional<double> server_cpu_us_per_request, user_us_per_request, system_us_per_request,
      workers_us_per_request, run_delay_us_per_request, client_cpu_us_per_request;
  std::optional<double> voluntary_switches_per_request, involuntary_switches_per_request;
  std::optional<double> syscalls_per_request, wakeups_per_request, events_per_wakeup;
  std::optional<double> kib_per_connection, tcp_kib_per_connection, achieved_share, steal_share,
      others_share;
  // To the baseline: per block the median over rounds of the pairwise ratio, then over blocks.
  std::optional<double> ratio_cpu, ratio_throughput, ratio_p50, ratio_p99;
  std::map<std::string, double> syscalls_by_kind;  // per request, without the sys_ prefix
};
struct SummaryField {
  const char* name;
  std::optional<double> Summary::*value;
  bool added;  // since the first files of this version, which lack it
};
const std::vector<SummaryField>& summary_fields();

// Against the baseline, over blocks (verdicts.hpp). Absent: not measured, or a run without blocks.
struct Verdicts {
  std::optional<Judgement> cpu, throughput, p99;
};

struct GateResult {
  std::string gate;
  double limit = 0;
  std::optional<double> worst;  // the value furthest from good over all slices
  std::uint64_t dropped = 0;    // slices dropped by it
  bool passed = true;           // false: the row has no verdict
};

// One contender in one cell.
struct Result {
  std::string variant;
  std::string error;       // what broke it; empty if nothing did. Slices before that are kept.
  std::string no_verdict;  // why the numbers are not fit for one; empty if they are
  std::vector<GateResult> gates;
  Summary summary;
  Verdicts verdicts;
  Window window;
  std::vector<SliceRow> slices;
  std::vector<BlockRow> blocks;  // those with a kept slice; none: an early file
  bool idle_known = true;        // false: an early file, without idle_ticks and client_delay_ns
  Histogram latency;             // kept slices merged; in open loop from the intended send time
  std::optional<Histogram> raw;  // open loop: from the actual send time
};

// What the seam costs: a backend's CPU per request, as a ratio to its raw control (seam.hpp).
struct Seam {
  std::string backend, control;
  std::size_t blocks = 0;
  std::optional<double> ratio, low, high;  // the interval at kCoverage
  std::string why;                         // the ratio is not known; empty if it is
};

struct CellRecord {
  CellShape shape;
  std::vector<Result> results;
  std::vector<Seam> seams{};  // of every control whose backend is here too

  [[nodiscard]] const Result* row(const std::string& variant) const;  // null: not here
};

// What a step of a sweep showed. The names are written to run.json.
enum class Slo : std::uint8_t { met, missed, unknown, failed };
const char* name_of(Slo);

// One variant at one rate; the cell of that rate has the figures.
struct SweepStep {
  double rate_per_s = 0;
  std::string variant;
  Slo slo = Slo::unknown;
  std::optional<std::uint64_t> percentile_ns;  // absent: too few samples
  std::size_t blocks_met = 0, blocks = 0;
  std::string why;  // not met; empty if it was
};

struct SweepResult {
  std::string variant;
  std::optional<double> highest_rate_per_s;        // that met the objective
  std::optional<double> lowest_missed_rate_per_s;  // above that
  std::string why;                                 // it ends there
};

struct SweepRecord {
  unsigned connections = 0;
  std::size_t size = 0;  // bytes
  double percentile = 0;
  std::uint64_t limit_ns = 0;
  std::vector<SweepResult> results;
  std::vector<SweepStep> steps;  // in the order in which they ran
};

struct FeatureRecord {
  std::string name;
  bool asked = false, granted = false;
  std::string note;
};

struct VariantRecord {
  std::string name;
  std::string command;      // foreign servers: as given with --server; empty for ours, controls too
  std::string unavailable;  // why it did not run here; empty if it did
  std::vector<FeatureRecord> features;  // what the server reports: asked and granted
};

struct PlacementRecord {
  std::string asked;  // auto, same or split
  std::string used;   // same or split
  std::vector<int> server_cpus, client_cpus;
  std::string why;
};

struct StealRecord {
  std::uint64_t tick_ns = 0;  // granularity of the steal column
  double median_share = 0;    // over the session's rounds, of the CPUs used
};

struct RunRecord {
  std::uint64_t version = kRunVersion;  // of the file that it was read from
  std::vector<std::string> command;
  std::uint64_t seed = 0;
  std::string started;  // UTC, ISO 8601
  double duration_s = 0;
  bool partial = false;
  nlohmann::json environment = nlohmann::json::object();
  Plan plan;
  PlacementRecord placement;
  StealRecord steal;
  std::vector<VariantRecord> variants;
  std::vector<CellRecord> cells;
  std::vector<SweepRecord> sweeps;  // of a plan with a sweep, whose cells are their steps

  [[nodiscard]] bool failed() const;  // some result has an error
};

// Not a run that this program can read. what() is one line: where, what is wrong, what to do.
struct RecordError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

nlohmann::ordered_json to_json(const RunRecord&);
RunRecord run_from_json(const nlohmann::json&);  // throws RecordError
// The text of run.json: one line per column, so that version control can show differences.
std::string to_text(const RunRecord&);

}  // namespace echolab::harness
