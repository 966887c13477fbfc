// What a run measures: the matrix of contenders x connections x sizes x depth x rates, and the
// order in which its slices come. Pure data and arithmetic; nothing is started here.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "harness/load.hpp"

namespace echolab::harness {

// Ends the name of the baseline's second copy: two of the same, the measure of noise.
inline constexpr const char* kAgain = " (A/A)";

// One server in the comparison: a backend of our echo-server, a raw control (controls.hpp), or any
// server by its command line.
struct Contender {
  std::string name;     // the backend spec ("epoll:lt") or the name given with --server
  std::string command;  // foreign servers only: contains {port}; empty for our own
  [[nodiscard]] bool foreign() const { return !command.empty(); }
  [[nodiscard]] bool control() const;
  [[nodiscard]] bool counts() const;  // our echo-server, which keeps counters and says what it is
  [[nodiscard]] bool again() const { return name.ends_with(kAgain); }  // the second copy
  [[nodiscard]] std::string spec() const;  // the name, without what marks the second copy
};

// "NAME=COMMAND {port}", as given with --server. Throws UsageError.
Contender parse_server(const std::string&);

// What is asked of a server in one cell of the matrix.
struct CellShape {
  unsigned connections = 1;
  std::size_t size = 64;  // bytes per request
  unsigned depth = 1;     // closed loop: requests in flight per connection
                          // open loop: the most that may be, always kOpenLoopDepth
  double rate = 0;        // requests/s over all connections; 0: closed loop
  double share = 0;       // open loop before calibration: of the lowest peak, instead of a rate

  [[nodiscard]] std::string name() const;  // "c64/s4096/d1", open loop "c64/s4096/r20000"
  friend bool operator==(const CellShape&, const CellShape&) = default;
};

struct Cell {
  CellShape shape;
  std::vector<std::size_t> contenders;  // indices into Plan::contenders, ascending
};

// 1 000 connections x depth 16 x 4 KiB need about 10 slices of 10 ms until all have been used.
inline constexpr unsigned kMostWarmUp = 20;
inline constexpr unsigned kMaxSlices = 100'000;  // per contender and cell
// More than a median's interval has use for; comparing two runs takes the fourth power of it.
inline constexpr unsigned kMaxBlocks = 100;
inline constexpr std::chrono::nanoseconds kMinSlice{1'000'000};       // 1 ms: a few requests
inline constexpr std::chrono::nanoseconds kMaxSlice{10'000'000'000};  // 10 s: no longer interleaved

// Open loop: with fewer requests due in a slice on average, too many have none by chance (5: 0.7 %
// of them, e^-5).
inline constexpr double kMinDuePerSlice = 5;

// The closed-loop throughput of one contender at depth 1, measured to choose rates.
struct Peak {
  unsigned connections = 0;
  std::size_t size = 0;  // bytes
  std::string variant;   // a contender, or kGenerator
  double rate = 0;       // requests/s
};
// The name of the trivial responder, whose peak is the generator's ceiling.
inline constexpr const char* kGenerator = "generator";

// What a sweep looks for (sweep.hpp): the highest rate at which a percentile of the latency is
// below a limit.
struct SweepGoal {
  double percentile = 99;  // 50, 90, 99 or 99.9
  std::chrono::nanoseconds limit{};
};

struct Plan {
  std::vector<Contender> contenders;
  std::string baseline = "epoll";
  std::vector<unsigned> connections{1, 64, 1000};
  std::vector<std::size_t> sizes{64, 4096};  // bytes
  std::vector<unsigned> depths{1, 16};
  std::vector<double> rates{0};  // requests/s; 0 is the closed loop
  std::vector<double> shares;    // open loop, of the lowest peak: 0.25
  std::vector<Peak> peaks;       // measured to choose rates
  bool calibrated = false;       // shares have become rates, where there is a peak
  unsigned slices = 104;         // per contender and cell, that pass the gates; all blocks together
  std::chrono::nanoseconds slice{10'000'000};
  // Slices per contender and block, discarded: at least so many, and up to kMostWarmUp until every
  // connection has been used.
  unsigned warm_up = 1;
  // Fresh starts of every server: a process is the unit that varies. At 1 there are no verdicts.
  unsigned blocks = 8;             // at least; the slices are shared out among them
  unsigned most_blocks = 24;       // a cell whose intervals are wide goes on, within the time
  std::chrono::nanoseconds cap{};  // the run ends then; zero: chosen by most_time()
  unsigned threads = 1;            // loops per server, where the model has loops
  std::string filter;              // regular expression on "variant/c64/s64/d1"; empty takes all
  bool quick = false;              // numbers, never a verdict
  std::optional<SweepGoal> sweep;  // its rates are found as it goes; rates and shares are empty
  bool few_controls = false;       // nobody asked for them: only where the seam shows most

  [[nodiscard]] unsigned slices_per_block() const;  // rounded up
  // Of the contenders among `of`, never above the generator's.
  [[nodiscard]] static std::optional<double> lowest_peak(const std::vector<Peak>& of,
                                                         unsigned connections, std::size_t size);
  // The baseline a second time, at the end, where there will be verdicts.
  void add_copy();

  // The cells in the order in which they run; open loop has no depths. A cell in which the filter
  // matches anything keeps its baseline as well, without which it would have no ratios. Throws
  // std::invalid_argument, one line: an empty or doubled list, a value out of range, a bad
  // expression, a baseline that is not among the contenders, a filter that matches nothing, a rate
  // that leaves most slices empty. Shares are cells of their own; once there are peaks, those
  // without one are left out.
  [[nodiscard]] std::vector<Cell> expand() const;
  [[nodiscard]] std::vector<CellShape> shapes() const;  // all of them, whatever the filter
};

// Why a server cannot serve a cell, known without starting it; empty if nothing is known against
// it. A worker of threads:pool=N has one connection until it ends, so that any connection beyond N
// would wait for ever.
std::string impossible(const Contender&, const CellShape&);

// "epoll:lt" in "c64/s64/d1" -> "epoll-lt-c64-s64-d1": what is safe in a file name on any system.
std::string file_stem(const std::string& variant, const CellShape&);

// The contenders that are measured when none are named.
std::vector<std::string> default_backends();

// Every contender exactly once, in an order drawn from rng: one round. Fisher-Yates written out,
// because std::shuffle differs between standard libraries and a recorded seed must mean something.
std::vector<std::size_t> round_order(const std::vector<std::size_t>& contenders,
                                     std::mt19937_64& rng);
// The generator of one cell's orders: the same run seed and cell always give the same rounds.
std::mt19937_64 cell_rng(std::uint64_t seed, std::size_t cell);

// How long the plan takes, from measured costs of starting, connecting and draining.
std::chrono::nanoseconds estimated_time(const Plan&, const std::vector<Cell>&);

// When a run must be over, however busy the machine: a slice that fails a gate is repeated only
// within this time, and what does not fit in is left out.
std::chrono::nanoseconds most_time(const Plan&, const std::vector<Cell>&);
// Blocks beyond the planned ones, for narrower intervals, are begun only if they end by then.
std::chrono::nanoseconds time_for_more_blocks(const Plan&, const std::vector<Cell>&);

// Descriptors that this process needs for the largest cell: it holds the connections to every
// contender of a cell at once.
std::size_t descriptors_needed(const std::vector<Cell>&);

}  // namespace echolab::harness
