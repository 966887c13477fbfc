#include "harness/plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <regex>
#include <set>
#include <stdexcept>
#include <string_view>

#include "harness/controls.hpp"
#include "harness/units.hpp"

namespace echolab::harness {
namespace {

// Measured on a small virtual machine; an estimate shown to people, nothing depends on it.
constexpr std::chrono::nanoseconds kStartStop{4'000'000};    // per server and block
constexpr std::chrono::nanoseconds kPerConnection{150'000};  // connect, verify, close; both sides
constexpr double kSliceOverhead = 1.02;  // waiting for the last replies, reading the accounts
constexpr double kWarmUpRate = 150'000;  // requests/s, of small and large ones, deep or not
// The longest that a run may take, of what is planned: the same machine is half as fast on a bad
// day.
constexpr int kMostTimePercent = 150;
// Small runs get more: on a loaded machine to start one server may take seconds.
constexpr std::chrono::nanoseconds kLeastSpareTime{50'000'000'000};
// The default matrix takes 3 minutes where the machine is as fast as the estimates.
constexpr std::chrono::nanoseconds kNoMoreBlocks{177'000'000'000};
constexpr std::chrono::nanoseconds kPreflight{1'500'000'000};

constexpr double kLeastRateShare = 0.01;  // of a peak; less is an idle server

// Beyond its connections: epoll, stdio, the pipes to the servers, files being written.
constexpr std::size_t kDescriptorsPerContender = 8;
constexpr std::size_t kDescriptorsOwn = 32;

template <class T, class Low, class High>
void check_list(const std::vector<T>& values, const char* what, Low low, High high) {
  if (values.empty()) throw std::invalid_argument(fmt::format("no {} given", what));
  std::set<T> seen;
  for (const T& v : values) {
    if (!(v >= static_cast<T>(low) && v <= static_cast<T>(high))) {  // also refuses NaN
      throw std::invalid_argument(fmt::format("{}: {} is not within {}..{}", what, v, low, high));
    }
    if (!seen.insert(v).second) {
      throw std::invalid_argument(fmt::format("{}: {} is given twice", what, v));
    }
  }
}

void check(const Plan& plan) {
  check_list(plan.connections, "connections", 1, kMaxConnections);
  check_list(plan.sizes, "sizes", 1, kMaxSize);
  check_list(plan.depths, "depths", 1, kMaxDepth);
  if (plan.sweep) {
    if (!plan.rates.empty() || !plan.shares.empty()) {
      throw std::invalid_argument("rates: a sweep chooses its own");
    }
  } else if (plan.shares.empty()) {
    check_list(plan.rates, "rates", 0, kMaxRate);
  } else {
    check_list(plan.shares, "shares of the lowest peak", kLeastRateShare, 1);
    if (!plan.rates.empty()) check_list(plan.rates, "rates", 0, kMaxRate);
  }
  if (plan.slices < 1 || plan.slices > kMaxSlices) {
    throw std::invalid_argument(
        fmt::format("slices: {} is not within 1..{}", plan.slices, kMaxSlices));
  }
  if (plan.blocks < 1 || plan.blocks > kMaxBlocks || plan.most_blocks < plan.blocks) {
    throw std::invalid_argument(
        fmt::format("blocks: {} is not within 1..{}", plan.blocks, kMaxBlocks));
  }
  if (plan.slice < kMinSlice || plan.slice > kMaxSlice) {
    throw std::invalid_argument("slice: a slice lasts between 1ms and 10s");
  }
  for (const double rate : plan.rates) {
    const double slice_s = std::chrono::duration<double>(plan.slice).count();
    if (rate == 0 || rate * slice_s >= kMinDuePerSlice) continue;
    const auto needed = std::chrono::ceil<std::chrono::milliseconds>(
        std::chrono::duration<double>(kMinDuePerSlice / rate));
    const std::string longer =
        needed <= kMaxSlice ? fmt::format("a --slice of {} ms or more, or ", needed.count()) : "";
    throw std::invalid_argument(
        fmt::format("rates: {}/s in slices of {} is {:.2g} requests a slice, fewer than {} leave "
                    "many empty: use "
                    "{}a rate of {:.4g}/s or more",
                    rate, format_duration(plan.slice), rate * slice_s, kMinDuePerSlice, longer,
                    std::ceil(kMinDuePerSlice / slice_s)));
  }
  if (plan.threads < 1) throw std::invalid_argument("threads: at least 1");
  if (plan.contenders.empty()) throw std::invalid_argument("no backends and no servers given");
  std::set<std::string> names, stems;
  for (const Contender& c : plan.contenders) {
    if (c.name.empty()) throw std::invalid_argument("a backend or server without a name");
    if (!names.insert(c.name).second) {
      throw std::invalid_argument(fmt::format("'{}' is given twice", c.name));
    }
    if (!stems.insert(file_stem(c.name, {})).second) {
      throw std::invalid_argument(
          fmt::format("'{}' would share its file names with another; rename it", c.name));
    }
    if (c.foreign() && c.command.find("{port}") == std::string::npos) {
      throw std::invalid_argument(
          fmt::format("server '{}': its command must contain {{port}}", c.name));
    }
  }
  if (!names.contains(plan.baseline)) {
    throw std::invalid_argument(
        fmt::format("the baseline '{}' is not among the backends; name another with --baseline",
                    plan.baseline));
  }
}

double warm_up_slices(const Plan& plan, const CellShape& shape) {
  const bool open = shape.rate > 0;
  const double requests = shape.connections * (open ? 1.0 : shape.depth);
  const double seconds = requests / (open ? shape.rate : kWarmUpRate);
  return std::clamp(std::ceil(seconds / std::chrono::duration<double>(plan.slice).count()),
                    static_cast<double>(plan.warm_up),
                    static_cast<double>(std::max(plan.warm_up, kMostWarmUp)));
}

// Controls: where the seam shows most. One small request at a time makes the most of every layer,
// and with many connections the noise is larger than the seam.
bool seam_shows(const CellShape& shape) {
  constexpr std::size_t kSmall = 64;  // bytes
  constexpr unsigned kFew = 64;       // connections
  return shape.size == kSmall && shape.depth == 1 && shape.connections <= kFew && shape.rate == 0 &&
         shape.share == 0;
}

}  // namespace

Contender parse_server(const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == text.size()) {
    throw UsageError(fmt::format("--server '{}': expected NAME='COMMAND {{port}}'", text));
  }
  return {text.substr(0, equals), text.substr(equals + 1)};
}

std::string Contender::spec() const {
  return again() ? name.substr(0, name.size() - std::string_view(kAgain).size()) : name;
}

bool Contender::control() const {
  return !foreign() && control_named(spec()) != nullptr;
}

bool Contender::counts() const {
  return !foreign() && !control();
}

unsigned Plan::slices_per_block() const {
  return (slices + blocks - 1) / blocks;
}

void Plan::add_copy() {
  if (quick || blocks < 2) return;
  for (const Contender& c : std::vector<Contender>(contenders)) {
    if (c.name == baseline) contenders.push_back({c.name + kAgain, c.command});
  }
}

std::string CellShape::name() const {
  if (rate > 0) return fmt::format("c{}/s{}/r{}", connections, size, rate);
  if (share > 0) return fmt::format("c{}/s{}/r{:g}%", connections, size, share * 100);
  return fmt::format("c{}/s{}/d{}", connections, size, depth);
}

std::string impossible(const Contender& contender, const CellShape& shape) {
  constexpr std::string_view kPool = "threads:pool=";
  const std::string spec = contender.spec();
  if (contender.foreign() || !spec.starts_with(kPool)) return "";
  const std::string_view digits = std::string_view(spec).substr(kPool.size());
  unsigned workers = 0;
  const auto [rest, error] = std::from_chars(digits.data(), digits.data() + digits.size(), workers);
  if (error != std::errc() || rest != digits.data() + digits.size()) return "";
  if (shape.connections <= workers) return "";
  return fmt::format(
      "{}: cannot serve {} connections at a time: it has {} workers, each of which serves one "
      "until it ends; not started",
      contender.name, shape.connections, workers);
}

std::string file_stem(const std::string& variant, const CellShape& shape) {
  std::string name = variant + "-" + shape.name();
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '_' && c != '.') c = '-';
  }
  return name;
}

std::vector<std::string> default_backends() {
  return {"threads", "epoll", "io_uring", "libuv", "epoll:lt", "libuv:inline", "io_uring:plain"};
}

std::optional<double> Plan::lowest_peak(const std::vector<Peak>& of, unsigned connections,
                                        std::size_t size) {
  std::optional<double> lowest;
  bool any = false;
  for (const Peak& peak : of) {
    if (peak.connections != connections || peak.size != size) continue;
    any = any || peak.variant != kGenerator;
    lowest = std::min(lowest.value_or(peak.rate), peak.rate);
  }
  return any ? lowest : std::nullopt;
}

std::vector<CellShape> Plan::shapes() const {
  std::vector<CellShape> out;
  const auto each = [&](const auto& add) {
    for (const std::size_t size : sizes) {
      for (const unsigned count : connections) add(count, size);
    }
  };
  for (const double rate : rates) {
    each([&](unsigned count, std::size_t size) {
      for (const unsigned depth : rate > 0 ? std::vector<unsigned>{kOpenLoopDepth} : depths) {
        out.push_back({count, size, depth, rate, 0});
      }
    });
  }
  // One for each sweep, in place of its steps; as a share, because peaks are measured for it.
  if (sweep) {
    each([&](unsigned count, std::size_t size) {
      out.push_back({count, size, kOpenLoopDepth, 0, 1});
    });
  }
  for (const double share : shares) {
    each([&](unsigned count, std::size_t size) {
      CellShape shape{count, size, kOpenLoopDepth, 0, share};
      if (calibrated) {
        const std::optional<double> lowest = lowest_peak(peaks, count, size);
        if (!lowest) return;
        const double least = kMinDuePerSlice / std::chrono::duration<double>(slice).count();
        shape.rate = std::round(std::max(share * *lowest, least));
        shape.share = 0;
      }
      if (std::find(out.begin(), out.end(), shape) == out.end()) out.push_back(shape);
    });
  }
  return out;
}

std::vector<Cell> Plan::expand() const {
  check(*this);
  std::regex expression;
  try {
    expression = std::regex(filter.empty() ? std::string(".*") : filter);
  } catch (const std::regex_error&) {
    throw std::invalid_argument(fmt::format("filter: '{}' is not a regular expression", filter));
  }
  std::vector<Cell> cells;
  for (const CellShape& shape : shapes()) {
    Cell cell{shape, {}};
    bool any = false;
    for (std::size_t i = 0; i < contenders.size(); ++i) {
      if (few_controls && contenders[i].control() && !seam_shows(shape)) continue;
      const bool matches =
          !contenders[i].again() &&
          std::regex_search(contenders[i].name + "/" + cell.shape.name(), expression);
      any = any || matches;
      if (matches || contenders[i].spec() == baseline) cell.contenders.push_back(i);
    }
    if (any) cells.push_back(std::move(cell));
  }
  if (cells.empty() && !calibrated) {
    throw std::invalid_argument(fmt::format(
        "filter: '{}' matches no cell; names look like {}/{}", filter, contenders.front().name,
        CellShape{connections.front(), sizes.front(), depths.front(), 0, 0}.name()));
  }
  return cells;
}

std::vector<std::size_t> round_order(const std::vector<std::size_t>& contenders,
                                     std::mt19937_64& rng) {
  std::vector<std::size_t> order = contenders;
  for (std::size_t i = order.size(); i > 1; --i) {
    // Rejection keeps every order equally likely.
    const std::uint64_t bound = UINT64_MAX - UINT64_MAX % i;
    std::uint64_t draw = rng();
    while (draw >= bound) draw = rng();
    std::swap(order[i - 1], order[draw % i]);
  }
  return order;
}

std::mt19937_64 cell_rng(std::uint64_t seed, std::size_t cell) {
  std::seed_seq sequence{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32),
                         static_cast<std::uint32_t>(cell)};
  return std::mt19937_64(sequence);
}

std::chrono::nanoseconds estimated_time(const Plan& plan, const std::vector<Cell>& cells) {
  std::chrono::nanoseconds total = kPreflight;
  for (const Cell& cell : cells) {
    const double per_block = plan.slices_per_block() + warm_up_slices(plan, cell.shape);
    const double slices = per_block * plan.blocks * kSliceOverhead;
    const auto loaded = std::chrono::nanoseconds(
        static_cast<std::int64_t>(slices * static_cast<double>(plan.slice.count())));
    total += static_cast<std::int64_t>(cell.contenders.size()) *
             (plan.blocks * (kStartStop + cell.shape.connections * kPerConnection) + loaded);
  }
  return total;
}

std::chrono::nanoseconds most_time(const Plan& plan, const std::vector<Cell>& cells) {
  const std::chrono::nanoseconds planned = estimated_time(plan, cells);
  if (plan.cap > std::chrono::nanoseconds::zero()) return plan.cap;
  return std::max(planned * kMostTimePercent / 100, planned + kLeastSpareTime);
}

std::chrono::nanoseconds time_for_more_blocks(const Plan& plan, const std::vector<Cell>& cells) {
  const std::chrono::nanoseconds most = most_time(plan, cells);
  const bool chosen = plan.cap > std::chrono::nanoseconds::zero();
  return chosen || estimated_time(plan, cells) > kNoMoreBlocks ? most
                                                               : std::min(most, kNoMoreBlocks);
}

std::size_t descriptors_needed(const std::vector<Cell>& cells) {
  std::size_t most = 0;
  for (const Cell& cell : cells) {
    most = std::max(most,
                    cell.contenders.size() * (cell.shape.connections + kDescriptorsPerContender));
  }
  return most + kDescriptorsOwn;
}

}  // namespace echolab::harness
