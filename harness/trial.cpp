#include "harness/trial.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <thread>

#include "harness/json_reader.hpp"

namespace echolab::harness {
namespace {

using namespace std::chrono_literals;

constexpr Nanos kConnectTimeout = 20s;  // 10 000 connections to a slow server on a loaded machine
// Connections whose bytes are checked with odd sizes and split writes before anything is timed; all
// replies are verified later on anyway.
constexpr unsigned kVerified = 64;
// Memory is measured at a quarter of the connections and at all of them. By a quarter, pools and
// buffers that all connections share exist; in between there must be enough connections to outweigh
// the steps in which memory grows.
constexpr unsigned kFewShare = 4;
constexpr unsigned kMemoryConnections = 64;
constexpr Millis kGrace{2'000};     // to stop; its connections are closed by then
constexpr Millis kDeathDelay{100};  // a dying process closes its sockets before it can be reaped
// Threads beside the loops: main, signals, the libuv threadpool.
constexpr unsigned kThreadsBesideLoops = 16;

std::string model_of(const std::string& spec) {
  return spec.substr(0, spec.find(':'));
}

std::uint64_t difference(std::uint64_t later, std::uint64_t earlier) {
  return later > earlier ? later - earlier : 0;  // threads that end take their counts along
}

}  // namespace

void check_label(const std::string& spec, const nlohmann::json& stats,
                 const DescriptorKinds& kinds) {
  const std::string reported = JsonReader(stats)["backend"].text();
  if (reported != spec) {
    throw WrongLabel(
        fmt::format("{}: wrong label: the server says that it runs '{}'", spec, reported));
  }
  if (!kinds.complete) return;  // its descriptors are hidden from us; its own word must do
  const std::string model = model_of(spec);
  const bool wants_ring = model == "io_uring";
  const bool wants_epoll = model == "epoll" || model == "libuv";
  const auto expect = [&](bool wanted, unsigned found, const char* what) {
    if (wanted == (found > 0)) return;
    throw WrongLabel(fmt::format("{}: wrong label: the server has {} {} descriptors open", spec,
                                 found == 0 ? "no" : "unexpected", what));
  };
  expect(wants_ring, kinds.io_uring, "io_uring");
  expect(wants_epoll, kinds.eventpoll, "epoll");
}

void check_threads(const std::string& spec, unsigned threads, unsigned connections,
                   unsigned loops) {
  if (spec == "threads") {
    if (threads > connections) return;
    throw WrongLabel(fmt::format("{}: wrong label: {} threads serve {} connections", spec, threads,
                                 connections));
  }
  const std::string model = model_of(spec);
  if (model != "epoll" && model != "io_uring") return;  // pools have as many as they are told
  if (threads <= loops + kThreadsBesideLoops) return;
  throw WrongLabel(fmt::format("{}: wrong label: {} threads for {} loops", spec, threads, loops));
}

Trial::Trial(const Contender& contender, const CellShape& shape, std::uint64_t seed)
    : contender_(contender), shape_(shape), seed_(seed) {
  result.variant = contender.name;
  if (shape.rate > 0) {
    slice_raw_.emplace();
    result.raw.emplace();
  }
}

void Trial::start(const std::string& program, const StartOptions& options) {
  loops_ = options.threads;
  server_.emplace([&] {
    if (contender_.foreign()) {
      return Server::start_foreign(contender_.name, contender_.command, options);
    }
    if (contender_.control()) {
      return Server::start_control(contender_.name, sibling_program(contender_.spec()), options);
    }
    return Server::start_own(program, contender_.spec(), options);
  }());
  if (server_->cpus() != options.cpus) {
    throw WrongLabel(fmt::format("{}: runs on the CPUs {} instead of {}", contender_.name,
                                 cpu_list(server_->cpus()), cpu_list(options.cpus)));
  }
  const Snapshot first = snapshot();
  result.window.rss_before_bytes = first.usage.rss_bytes;
  if (!contender_.counts()) return;
  try {
    check_label(contender_.spec(), first.stats, server_->accounting().descriptors());
    for (const JsonReader& f : JsonReader(first.stats)["features"].items()) {
      features_.push_back(
          {f["name"].text(), f["asked"].flag(), f["granted"].flag(), f["note"].text()});
    }
  } catch (const JsonError& error) {
    throw ServerError(ServerError::Kind::stats,
                      fmt::format("{}: its counters: {}", contender_.name, error.what()));
  }
}

void Trial::connect() {
  const Shape shape{shape_.connections, shape_.size, shape_.depth, shape_.rate, Arrivals::poisson};
  load_ = std::make_unique<Load>(parse_endpoint(fmt::format("127.0.0.1:{}", server_->port())),
                                 shape, seed_);
  if (shape_.connections >= kMemoryConnections) {
    for (const unsigned count : {shape_.connections / kFewShare, shape_.connections}) {
      load_->connect(kConnectTimeout, count);
      const TcpMemory tcp = tcp_memory();
      result.window.memory.push_back(
          {count, server_->accounting().usage().rss_bytes, tcp.sockets, tcp.bytes});
    }
  } else {
    load_->connect(kConnectTimeout);
  }
  // Only now: it makes servers allocate for far larger messages than they are measured with.
  load_->verify(std::min(shape_.connections, kVerified));
}

void Trial::warm_up(Nanos duration) {
  Histogram discarded, discarded_raw;
  requests_ += load_->run(duration, discarded, slice_raw_ ? &discarded_raw : nullptr).requests;
}

Trial::Snapshot Trial::snapshot() {
  Snapshot now;
  if (contender_.counts()) now.stats = server_->stats();
  now.usage = server_->accounting().usage();
  now.requests = requests_;
  return now;
}

bool Trial::warm() const {
  return load_->used() == shape_.connections;
}

void Trial::open_window() {
  opened_ = snapshot();
  result.window.threads = opened_->usage.threads;
  result.window.rss_connected_bytes = opened_->usage.rss_bytes;
  if (contender_.counts()) {
    check_threads(contender_.spec(), opened_->usage.threads, shape_.connections, loops_);
  }
}

SliceRow Trial::slice(Nanos duration) {
  slice_latency_.clear();
  if (slice_raw_) slice_raw_->clear();
  Accounting& accounting = server_->accounting();
  const std::uint64_t before = accounting.cpu_ns();
  const Slice slice = load_->run(duration, slice_latency_, slice_raw_ ? &*slice_raw_ : nullptr);
  SliceRow row;
  row.server_cpu_ns = difference(accounting.cpu_ns(), before);
  requests_ += slice.requests;
  row.requests = slice.requests;
  row.elapsed_ns = static_cast<std::uint64_t>(slice.elapsed.count());
  row.client_cpu_ns = static_cast<std::uint64_t>(slice.client_cpu.count());
  row.latency_mean_ns = static_cast<std::uint64_t>(slice_latency_.mean());
  row.p50_ns = slice_latency_.quantile(0.5);
  row.p99_ns = slice_latency_.quantile(0.99);
  row.max_ns = slice_latency_.max();
  row.inflight_mean = slice.inflight_mean;
  row.due = slice.due;
  row.skipped = slice.skipped;
  return row;
}

void Trial::keep() {
  result.latency.merge(slice_latency_);
  if (slice_raw_) result.raw->merge(*slice_raw_);
}

void Trial::close_window() try {
  if (!opened_) return;  // interrupted before
  const Snapshot now = snapshot();
  Window& w = result.window;
  w.requests = now.requests - opened_->requests;
  w.cpu_ns = difference(now.usage.cpu_ns, opened_->usage.cpu_ns);
  w.user_ns = difference(now.usage.user_ns, opened_->usage.user_ns);
  w.system_ns = difference(now.usage.system_ns, opened_->usage.system_ns);
  w.workers_ns = difference(now.usage.worker_ns, opened_->usage.worker_ns);
  if (now.usage.scheduler_known) {
    w.run_delay_ns = difference(now.usage.run_delay_ns, opened_->usage.run_delay_ns);
  }
  w.voluntary_switches =
      difference(now.usage.voluntary_switches, opened_->usage.voluntary_switches);
  w.involuntary_switches =
      difference(now.usage.involuntary_switches, opened_->usage.involuntary_switches);
  if (!contender_.counts()) return;
  const JsonReader later(now.stats), earlier(opened_->stats);
  w.counters.emplace();
  for (const auto& [name, value] : later["counters"].object().items()) {
    (*w.counters)[name] = difference(JsonReader(value, "counters." + name).whole(),
                                     earlier["counters"][name.c_str()].whole());
  }
  w.batches = later["batches"].wholes();
  const std::vector<std::uint64_t> before = earlier["batches"].wholes();
  for (std::size_t i = 0; i < w.batches->size() && i < before.size(); ++i) {
    (*w.batches)[i] = difference((*w.batches)[i], before[i]);
  }
} catch (const JsonError& error) {
  throw ServerError(ServerError::Kind::stats,
                    fmt::format("{}: its counters: {}", contender_.name, error.what()));
}

void add_block(Result& to, const Result& block) {
  to.error = block.error;
  to.slices.insert(to.slices.end(), block.slices.begin(), block.slices.end());
  to.blocks.insert(to.blocks.end(), block.blocks.begin(), block.blocks.end());
  to.latency.merge(block.latency);
  if (to.raw && block.raw) to.raw->merge(*block.raw);
  Window& sum = to.window;
  const Window& w = block.window;
  if (w.requests == 0) return;  // it did not last until the window was closed
  sum.requests += w.requests;
  sum.cpu_ns += w.cpu_ns;
  sum.user_ns += w.user_ns;
  sum.system_ns += w.system_ns;
  sum.workers_ns += w.workers_ns;
  sum.voluntary_switches += w.voluntary_switches;
  sum.involuntary_switches += w.involuntary_switches;
  if (sum.run_delay_ns && w.run_delay_ns) *sum.run_delay_ns += *w.run_delay_ns;
  if (!sum.counters || !w.counters || !sum.batches || !w.batches) return;
  for (const auto& [name, count] : *w.counters) (*sum.counters)[name] += count;
  sum.batches->resize(std::max(sum.batches->size(), w.batches->size()));
  for (std::size_t i = 0; i < w.batches->size(); ++i) (*sum.batches)[i] += (*w.batches)[i];
}

void Trial::stop() noexcept {
  load_.reset();
  try {
    if (server_) server_->stop(kGrace);
  } catch (const std::exception&) {
    // Its destructor kills what is left; the numbers are complete.
  }
  server_.reset();
}

std::string Trial::explain(const std::exception& error) {
  const auto* load_error = dynamic_cast<const LoadError*>(&error);
  if (!server_ || load_error == nullptr) return error.what();
  const auto until = Clock::now() + kDeathDelay;
  while (Clock::now() < until) {
    if (const std::optional<std::string> death = server_->death()) return *death;
    std::this_thread::sleep_for(1ms);
  }
  return fmt::format("{}: {}", contender_.name, error.what());
}

}  // namespace echolab::harness
