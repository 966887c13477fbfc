// One contender in one cell: its server process, the connections to it, and its accounts. The
// runner (bench.hpp) starts one for every contender, loads them in turn and stops them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "harness/load.hpp"
#include "harness/plan.hpp"
#include "harness/process.hpp"
#include "harness/run_record.hpp"

namespace echolab::harness {

// The server is not what its name says.
struct WrongLabel : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Checks a server of ours by what it reports (schema echolab.stats) and, independently of that, by
// the kinds of its descriptors. Throws WrongLabel.
void check_label(const std::string& spec, const nlohmann::json& stats, const DescriptorKinds&);
// Checks it by its threads once `connections` are open: a thread each, or a few loops. Throws
// WrongLabel.
void check_threads(const std::string& spec, unsigned threads, unsigned connections, unsigned loops);

// A later block of the same contender: its slices, latencies and what it consumed are added. Memory
// and threads stay those of the first.
void add_block(Result& to, const Result& block);

class Trial {
 public:
  // Nothing happens yet.
  Trial(const Contender&, const CellShape&, std::uint64_t seed);

  // The steps, in this order. Each throws what went wrong: ServerError, LoadError, WrongLabel,
  // std::system_error.
  void start(const std::string& program, const StartOptions&);
  void connect();  // all connections, and a sample of them verified in odd sizes
  void warm_up(Nanos);
  // Every connection has been used. The first requests on each cost more (pages of a thread's
  // stack, buffers, congestion windows), and with 1 000 of them for a while.
  [[nodiscard]] bool warm() const;
  void open_window();     // the account of Window begins
  SliceRow slice(Nanos);  // not judged; block, round, position and steal are left to the caller
  void keep();            // the last slice's latencies count
  void close_window();    // and ends
  void stop() noexcept;   // closes the connections first

  // The line for the user about an exception of a step: if the server died, that is the reason.
  [[nodiscard]] std::string explain(const std::exception&);
  [[nodiscard]] const std::vector<FeatureRecord>& features() const { return features_; }

  Result result;  // filled in as the steps go; slices by the caller, the summary by summarise()

 private:
  struct Snapshot {
    Usage usage;
    nlohmann::json stats;  // null for servers without counters
    std::uint64_t requests = 0;
  };
  Snapshot snapshot();

  Contender contender_;
  CellShape shape_;
  std::uint64_t seed_;
  unsigned loops_ = 1;
  std::optional<Server> server_;
  std::unique_ptr<Load> load_;
  std::optional<Snapshot> opened_;
  std::uint64_t requests_ = 0;  // completed since the start, warm-up included
  std::vector<FeatureRecord> features_;
  Histogram slice_latency_;
  std::optional<Histogram> slice_raw_;
};

}  // namespace echolab::harness
