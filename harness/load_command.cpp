// `harness load`: one load on any echo server, one summary.
//
// --json prints one document, schema echolab.load version 1; results/README.md describes its
// fields.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <sstream>
#include <string>

#include "harness/client_socket.hpp"
#include "harness/commands.hpp"
#include "harness/files.hpp"
#include "harness/histogram.hpp"
#include "harness/load.hpp"
#include "harness/output.hpp"
#include "harness/progress.hpp"
#include "harness/signals.hpp"
#include "harness/units.hpp"

namespace echolab::harness {
namespace {

constexpr int kLoadVersion = 1;
// Discarded before the measured part: caches, windows and server threads settle in it.
constexpr double kWarmUpShare = 0.05;
constexpr Nanos kLongestWarmUp = std::chrono::seconds(1);
// Connections whose bytes are verified in odd sizes before anything is timed.
constexpr unsigned kVerified = 64;

constexpr std::pair<const char*, double> kQuantiles[] = {
    {"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}};
constexpr const char* kQuantileFields[] = {"p50_us", "p90_us", "p99_us", "p999_us"};

// As typed; parsed when the command runs, so that every mistake is reported in the same way.
struct Options {
  std::string connect;
  std::string connections = "64";
  std::string size = "512";
  std::string depth;
  std::string duration = "10s";
  std::string rate;
  std::string arrivals;
  std::string patience = "10s";
  std::string hgrm;
  std::string seed;
  bool json = false;
};

struct Setup {
  Endpoint endpoint;
  Shape shape;
  Nanos duration;
  Nanos warm_up;
  std::uint64_t seed;
};

struct Outcome {
  bool started = false;  // the measured part, after connecting and warming up
  Slice slice;
  Histogram latency;
  std::optional<Histogram> raw;  // open loop
  std::string failure;           // the line of the error that ended the run, if any
  std::string nothing;           // why a run that went well has no numbers, if it has none
  bool interrupted = false;

  [[nodiscard]] bool partial() const { return interrupted || !failure.empty(); }
};

double us(double ns) {
  return ns / 1e3;
}
double seconds(Nanos ns) {
  return static_cast<double>(ns.count()) / 1e9;
}
double over(double value, double by) {
  return by > 0 ? value / by : 0;
}

unsigned small(std::uint64_t value, const char* what, unsigned most) {
  if (value >= 1 && value <= most) return static_cast<unsigned>(value);
  throw UsageError(fmt::format("{} must be 1 to {}", what, most));
}

Setup setup_of(const Options& o) {
  Setup setup{};
  Shape& shape = setup.shape;
  shape.connections =
      small(parse_count(o.connections, "--connections"), "--connections", kMaxConnections);
  shape.size = parse_size(o.size, "--size");
  if (shape.size < 1 || shape.size > kMaxSize) {
    throw UsageError(fmt::format("--size must be 1 B to {}", format_size(kMaxSize)));
  }
  if (!o.rate.empty()) {
    shape.rate = parse_rate(o.rate, "--rate");
    if (shape.rate <= 0 || shape.rate > kMaxRate) {
      throw UsageError(fmt::format("--rate must be more than 0 and at most {} requests/s",
                                   format_count(kMaxRate)));
    }
  }
  shape.depth = shape.rate > 0 ? kOpenLoopDepth : 1;
  if (!o.depth.empty()) shape.depth = small(parse_count(o.depth, "--depth"), "--depth", kMaxDepth);
  if (!o.arrivals.empty() && o.rate.empty()) {
    throw UsageError("--arrivals is for the open loop: give a --rate with it");
  }
  shape.arrivals = o.arrivals == "constant" ? Arrivals::constant : Arrivals::poisson;
  setup.duration = parse_duration(o.duration, "--duration");
  setup.warm_up = std::min(
      kLongestWarmUp,
      Nanos(static_cast<Nanos::rep>(kWarmUpShare * static_cast<double>(setup.duration.count()))));
  setup.seed = o.seed.empty() ? std::random_device{}() : parse_seed(o.seed, "--seed");
  setup.endpoint = parse_endpoint(o.connect);
  try {
    allow_connections(shape.connections);
  } catch (const LoadError& error) {
    throw UsageError(error.what());  // known before anything is tried
  }
  return setup;
}

Outcome measure(const Setup& setup, Nanos patience) {
  const double warm_up_s = seconds(setup.warm_up);
  const double total_s = warm_up_s + seconds(setup.duration);
  Outcome outcome;
  if (setup.shape.rate > 0) outcome.raw.emplace();
  Progress progress = Progress::on_stderr();
  Load load(setup.endpoint, setup.shape, setup.seed);
  load.set_patience(patience);
  try {
    progress.step(fmt::format("connecting {} to {}", setup.shape.connections, setup.endpoint.text),
                  0, total_s);
    load.connect(patience);
    load.verify(kVerified);
    progress.step("warming up for " + format_duration(setup.warm_up), 0, total_s);
    Histogram discarded;
    load.run(setup.warm_up, discarded, nullptr);
    progress.step("measuring for " + format_duration(setup.duration), warm_up_s, total_s);
    load.set_progress([&](Nanos elapsed, std::uint64_t requests) {
      const double elapsed_s = std::min(seconds(elapsed), seconds(setup.duration));
      progress.update(
          fmt::format("{} requests, {} requests/s", format_count(static_cast<double>(requests)),
                      format_count(over(static_cast<double>(requests), seconds(elapsed)))),
          warm_up_s + elapsed_s, total_s);
    });
    if (!Load::interrupted()) {
      outcome.started = true;
      load.run(setup.duration, outcome.latency, outcome.raw ? &*outcome.raw : nullptr);
    }
  } catch (const LoadError& error) {
    if (error.kind != LoadError::Kind::interrupted) outcome.failure = error.what();
  }
  if (outcome.started) outcome.slice = load.partial();
  outcome.interrupted = Load::interrupted();
  const bool measured = outcome.started && !outcome.partial();
  if (measured && setup.shape.rate > 0 && outcome.slice.due == 0) {
    outcome.nothing = fmt::format(
        "nothing was measured: no request was due in {} at {:.6g} requests/s; use a longer "
        "--duration or a higher --rate",
        format_duration(setup.duration), setup.shape.rate);
  }
  return outcome;
}

nlohmann::ordered_json latency_json(const Histogram& h) {
  using Json = nlohmann::ordered_json;
  Json j;
  const auto value = [&](double ns) { return h.count() > 0 ? Json(us(ns)) : Json(); };
  j["samples"] = h.count();
  j["min_us"] = value(static_cast<double>(h.min()));
  j["mean_us"] = value(h.mean());
  for (std::size_t i = 0; i < std::size(kQuantiles); ++i) {
    const auto q = h.supported_quantile(kQuantiles[i].second);
    j[kQuantileFields[i]] = q ? Json(us(static_cast<double>(*q))) : Json();
  }
  j["max_us"] = value(static_cast<double>(h.max()));
  return j;
}

std::string json_text(const Setup& setup, const Outcome& outcome) {
  const Slice& s = outcome.slice;
  const Shape& shape = setup.shape;
  const auto requests = static_cast<double>(s.requests);
  const bool any = s.requests > 0;
  const auto or_null = [&](bool known, double value) {
    return known ? nlohmann::ordered_json(value) : nlohmann::ordered_json();
  };
  nlohmann::ordered_json j;
  j["schema"] = "echolab.load";
  j["version"] = kLoadVersion;
  j["partial"] = outcome.partial();
  const std::string& error = outcome.failure.empty() ? outcome.nothing : outcome.failure;
  j["error"] = error.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(error);
  j["server"] = setup.endpoint.text;
  j["connections"] = shape.connections;
  j["size_bytes"] = shape.size;
  j["depth"] = shape.depth;
  j["loop"] = shape.rate > 0 ? "open" : "closed";
  j["seed"] = setup.seed;
  j["duration_s"] = seconds(setup.duration);
  j["warm_up_s"] = seconds(setup.warm_up);
  j["elapsed_s"] = seconds(s.elapsed);
  j["requests"] = s.requests;
  j["requests_per_s"] = or_null(any, over(requests, seconds(s.elapsed)));
  j["mb_per_s"] =
      or_null(any, over(requests * static_cast<double>(shape.size) / 1e6, seconds(s.elapsed)));
  j["latency"] = latency_json(outcome.latency);
  j["client_cpu_us_per_request"] =
      or_null(any, over(us(static_cast<double>(s.client_cpu.count())), requests));
  j["inflight_mean"] = or_null(any, s.inflight_mean);
  if (outcome.raw) {
    j["open_loop"] = {
        {"arrivals", shape.arrivals == Arrivals::poisson ? "poisson" : "constant"},
        {"rate_per_s", shape.rate},
        {"due", s.due},
        {"skipped", s.skipped},
        {"achieved_share", or_null(s.due > 0, over(requests, static_cast<double>(s.due)))},
        {"latency_raw", latency_json(*outcome.raw)}};
  } else {
    j["open_loop"] = nullptr;
  }
  return j.dump(2) + "\n";
}

std::string latency_line(const char* label, const Histogram& h) {
  const auto cell = [](std::optional<double> ns) {
    return ns ? fmt::format("{:>10.1f}", us(*ns)) : fmt::format("{:>10}", "-");
  };
  const auto present = [&](double ns) {
    return h.count() > 0 ? std::optional<double>(ns) : std::nullopt;
  };
  std::string line = fmt::format("{:<14}{}{}", label, cell(present(static_cast<double>(h.min()))),
                                 cell(present(h.mean())));
  for (const auto& [name, q] : kQuantiles) {
    const auto value = h.supported_quantile(q);
    line += cell(value ? std::optional<double>(static_cast<double>(*value)) : std::nullopt);
  }
  return line + cell(present(static_cast<double>(h.max()))) + "\n";
}

// "-" where there is no number: never a zero for what was not measured.
std::string number(bool known, double value, int digits) {
  return known ? fmt::format("{:.{}f}", value, digits) : "-";
}

std::string table_text(const Setup& setup, const Outcome& outcome) {
  const Slice& s = outcome.slice;
  const Shape& shape = setup.shape;
  const auto requests = static_cast<double>(s.requests);
  const bool any = s.requests > 0;
  const std::string loop =
      shape.rate > 0 ? fmt::format("open loop at {} requests/s ({})", format_count(shape.rate),
                                   shape.arrivals == Arrivals::poisson ? "poisson" : "constant")
                     : std::string("closed loop");
  std::string out = fmt::format(
      "{}: {} connections x {}, depth {}, {}, {} (and {} of warm-up, discarded), seed {}\n",
      setup.endpoint.text, shape.connections, format_size(shape.size), shape.depth, loop,
      format_duration(setup.duration), format_duration(setup.warm_up), setup.seed);
  if (outcome.partial()) {
    out += fmt::format("partial       {}\n",
                       outcome.failure.empty() ? "interrupted" : "the run failed");
  }
  out += fmt::format("requests      {} in {:.3f} s{}\n", s.requests, seconds(s.elapsed),
                     any ? ", every byte verified" : "");
  out += fmt::format(
      "throughput    {} requests/s, {} MB/s of payload one way\n",
      number(any, over(requests, seconds(s.elapsed)), 0),
      number(any, over(requests * static_cast<double>(shape.size) / 1e6, seconds(s.elapsed)), 2));
  if (shape.rate > 0) {
    out += fmt::format("offered       {} due, {} skipped (depth reached), {} % achieved\n", s.due,
                       s.skipped,
                       number(s.due > 0, 100 * over(requests, static_cast<double>(s.due)), 2));
  }
  out += fmt::format("{:<14}{:>10}{:>10}", "latency, us", "min", "mean");
  for (const auto& [name, q] : kQuantiles) out += fmt::format("{:>10}", name);
  out += fmt::format("{:>10}\n", "max");
  if (outcome.raw) {
    out += latency_line("  when due", outcome.latency);
    out += latency_line("  when sent", *outcome.raw);
  } else {
    out += latency_line("", outcome.latency);
  }
  return out +
         fmt::format("client CPU    {} us/request\n",
                     number(any, over(us(static_cast<double>(s.client_cpu.count())), requests), 3));
}

// For the distribution. Throws std::runtime_error, one line.
class HgrmFile {
 public:
  // Proves that the file can be written, before a run whose results must not be lost for a wrong
  // path. What is in it stays until write().
  explicit HgrmFile(std::string path) : path_(std::move(path)) {
    if (!path_.empty()) open(O_APPEND).reset();
  }
  void write(const Histogram& latency) const {
    if (path_.empty()) return;
    std::ostringstream text;
    latency.write_hgrm(text);
    if (!write_text(open(O_TRUNC).get(), text.str())) fail();
  }

 private:
  [[nodiscard]] Descriptor open(int how) const {
    Descriptor file(::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | how, 0644));
    if (!file) fail();
    return file;
  }
  [[noreturn]] void fail() const {
    throw std::runtime_error(fmt::format("cannot write '{}': {}", path_, std::strerror(errno)));
  }

  std::string path_;
};

int run_load(const Options& options) {
  const Setup setup = setup_of(options);
  const Nanos patience = parse_duration(options.patience, "--patience");
  const HgrmFile hgrm(options.hgrm);
  const OrderlySignals signals(Again::kills);
  const Outcome outcome = measure(setup, patience);

  if (options.json) {
    show(json_text(setup, outcome));
  } else if (outcome.started) {
    show(table_text(setup, outcome));
  }
  if (!outcome.failure.empty()) tell(fmt::format("harness: {}\n", outcome.failure));
  if (!outcome.nothing.empty()) tell(fmt::format("harness: {}\n", outcome.nothing));
  if (outcome.interrupted) {
    tell(outcome.started ? "harness: interrupted; what was measured until then is shown\n"
                         : "harness: interrupted before anything was measured\n");
  }
  if (outcome.started) hgrm.write(outcome.latency);
  if (outcome.interrupted) return kExitInterrupted;
  return outcome.failure.empty() && outcome.nothing.empty() ? kExitOk : kExitFailed;
}

}  // namespace

void add_load(CLI::App& app, Chosen& chosen) {
  const auto options = std::make_shared<Options>();
  Options& o = *options;
  CLI::App* load = app.add_subcommand("load", "Drive one echo server, ours or not.");
  load->add_option("--connect", o.connect, "the server, HOST:PORT")->required();
  load->add_option("-c,--connections", o.connections, "connections")->capture_default_str();
  load->add_option("-s,--size", o.size, "bytes per request, such as 64 or 4KiB")
      ->capture_default_str();
  load->add_option("--depth", o.depth,
                   fmt::format("requests in flight per connection: 1 unless given; with --rate the "
                               "most there may be, {} unless given",
                               kOpenLoopDepth));
  load->add_option("-d,--duration", o.duration, "how long, such as 10s or 250ms")
      ->capture_default_str();
  load->add_option(
      "--rate", o.rate,
      "open loop: requests/s over all connections, such as 50k; closed loop if absent");
  load->add_option("--arrivals", o.arrivals, "open loop: when requests are due [poisson]")
      ->check(CLI::IsMember({"poisson", "constant"}));
  load->add_option("--patience", o.patience, "the longest silence of the server before giving up")
      ->capture_default_str();
  load->add_option("--seed", o.seed, "of arrivals and bytes; random unless given");
  load->add_option("--hgrm", o.hgrm, "write the latency distribution to this file (.hgrm)");
  load->add_flag("--json", o.json, "print one JSON document (schema echolab.load)");
  load->callback([options, &chosen] { chosen = [options] { return run_load(*options); }; });
}

}  // namespace echolab::harness
