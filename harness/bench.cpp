#include "harness/bench.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <map>
#include <memory>
#include <set>

#include "harness/calibration.hpp"
#include "harness/cpu_ticks.hpp"
#include "harness/environment.hpp"
#include "harness/gates.hpp"
#include "harness/load.hpp"
#include "harness/process.hpp"
#include "harness/summary.hpp"
#include "harness/sweep.hpp"
#include "harness/trial.hpp"
#include "harness/units.hpp"
#include "harness/verdicts.hpp"

namespace echolab::harness {
namespace {

// Dropped slices and rounds are repeated, but no more of them than this share of the plan: on a
// machine that fails the gates all the time the run must still end.
constexpr double kRepeatShare = 0.25;

std::string utc_now() {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
}

PlacementRecord record_placement(PlaceWish wish, const Placement& placement) {
  static constexpr const char* kNames[] = {"auto", "same", "split"};
  return {kNames[static_cast<int>(wish)], placement.same ? "same" : "split", placement.server,
          placement.client, placement.reason};
}

Cpus cpus_used(const Placement& placement) {
  std::set<int> all(placement.server.begin(), placement.server.end());
  all.insert(placement.client.begin(), placement.client.end());
  return {all.begin(), all.end()};
}

class Runner {
 public:
  Runner(const BenchOptions& options, RunRecord& run, const Placement& placement,
         Progress& progress)
      : options_(options),
        run_(run),
        placement_(placement),
        progress_(progress),
        cells_(options.plan.expand()),
        ticks_(cpus_used(placement)),
        circumstances_(
            circumstances(options.plan, run.placement, StealRecord{ticks_.tick_ns(), 0})) {
    for (const Cell& cell : cells_) total_slices_ += planned_slices(cell);
    run_.steal.tick_ns = ticks_.tick_ns();
  }

  void run(const std::function<void(const RunRecord&)>& after_cell) {
    const auto began = Clock::now();
    const auto end = began + most_time(plan(), cells_);
    const auto no_more_blocks = began + time_for_more_blocks(plan(), cells_);
    run_.partial = !cells_.empty() || Load::interrupted();
    for (std::size_t i = 0; i < cells_.size() && !Load::interrupted(); ++i) {
      // Time that a cell leaves over is shared by those that follow.
      const std::vector<Cell> left(cells_.begin() + static_cast<std::ptrdiff_t>(i), cells_.end());
      const double part = std::chrono::duration<double>(estimated_time(plan(), {cells_[i]})) /
                          estimated_time(plan(), left);
      const auto now = Clock::now();
      const auto share = [&](Clock::time_point of) {
        return now + std::chrono::duration_cast<Nanos>((of - now) * part);
      };
      cell_end_ = share(end);
      no_more_blocks_ = share(no_more_blocks);
      run_cell(cells_[i], i,
               fmt::format("cell {} of {}: {}", i + 1, cells_.size(), cells_[i].shape.name()));
      run_.partial = i + 1 < cells_.size() || Load::interrupted();
      after_cell(run_);
    }
  }

  // Instead: the cells stand for sweeps, whose steps are found as they go.
  void sweep(const std::function<void(const RunRecord&)>& after_cell) {
    const auto end = Clock::now() + sweep_time(plan(), cells_.size());
    total_slices_ *= static_cast<double>(sweep_shares(plan().quick).size());
    bool complete = true;
    for (std::size_t i = 0; i < cells_.size(); ++i) {
      const CellShape& point = cells_[i].shape;
      const auto now = Clock::now();
      const auto until = now + (end - now) / (cells_.size() - i);
      SweepRecord record = begin_sweep(point, *plan().sweep);
      std::vector<std::string> variants;
      for (const std::size_t c : cells_[i].contenders) {
        if (run_.variants[c].unavailable.empty()) variants.push_back(run_.variants[c].name);
      }
      const bool done = search(record, variants, sweep_rates(plan(), point.connections, point.size),
                               !plan().quick, [&](double rate, const std::vector<std::string>& to) {
                                 auto steps = sweep_step(point, rate, to, until);
                                 after_cell(run_);
                                 return steps;
                               });
      complete = complete && done;
      run_.sweeps.push_back(std::move(record));
    }
    run_.partial = !complete || Load::interrupted();
  }

 private:
  using Trials = std::vector<std::unique_ptr<Trial>>;  // by contender; null: not in this cell

  [[nodiscard]] const Plan& plan() const { return options_.plan; }
  [[nodiscard]] double planned_slices(const Cell& cell) const {
    return static_cast<double>(cell.contenders.size()) * plan().blocks *
           (plan().slices_per_block() + plan().warm_up);
  }

  // Nothing: it does not fit in, or was interrupted; what it measured is in the record all the
  // same.
  std::optional<std::vector<SweepStep>> sweep_step(const CellShape& point, double rate,
                                                   const std::vector<std::string>& to,
                                                   Clock::time_point until) {
    Cell step{{point.connections, point.size, point.depth, rate, 0}, {}};
    for (std::size_t i = 0; i < plan().contenders.size(); ++i) {
      if (std::find(to.begin(), to.end(), plan().contenders[i].name) != to.end()) {
        step.contenders.push_back(i);
      }
    }
    const auto now = Clock::now();
    const Nanos planned = estimated_time(plan(), {step});
    if (Load::interrupted() || now + planned > until) return std::nullopt;
    cell_end_ = std::min(until, now + 2 * planned);  // a busy machine may not take it all
    no_more_blocks_ = cell_end_;
    run_cell(step, run_.cells.size(), "sweep: " + step.shape.name());
    if (Load::interrupted()) return std::nullopt;
    std::vector<SweepStep> steps;
    if (run_.cells.empty() || !(run_.cells.back().shape == step.shape)) return steps;
    for (const Result& result : run_.cells.back().results) {
      steps.push_back(judge_step(result, rate, plan(), block_percentiles_[result.variant]));
    }
    return steps;
  }

  // `index` draws the orders.
  void run_cell(const Cell& cell, std::size_t index, const std::string& name) {
    cell_ = &cell;
    cell_name_ = name;
    block_percentiles_.clear();
    cell_done_ = 0;
    progress_.step(cell_name_, done_slices_, total_slices_);
    results_.assign(plan().contenders.size(), std::nullopt);
    rng_ = cell_rng(options_.seed, index);
    round_repeats_ = allowed_repeats();
    slice_repeats_.assign(plan().contenders.size(), allowed_repeats());
    rounds_done_ = 0;
    cell_began_ = Clock::now();
    for (block_ = 0; !Load::interrupted() && another_block(); ++block_) run_block();
    finish();
    done_slices_ += planned_slices(cell);
  }

  // As many as planned; then, if there is time for one more, until the intervals are narrow.
  [[nodiscard]] bool another_block() const {
    if (block_ == 0) return true;
    const auto now = Clock::now();
    if (block_ < plan().blocks) return now < cell_end_;  // what is missing is said in the rows
    if (block_ >= plan().most_blocks) return false;
    if (now + (now - cell_began_) / block_ > no_more_blocks_) return false;
    CellRecord so_far = cell_record();
    summarise(so_far, plan(), run_.placement, run_.steal);
    return plan().sweep ? !enough_samples(so_far, *plan().sweep) : !precise(so_far);
  }

  void run_block() {
    trials_.clear();
    trials_.resize(plan().contenders.size());
    prepare();
    for (round_ = 0; round_ < plan().slices_per_block() && !Load::interrupted(); ++round_) {
      if (round_ > 0 && Clock::now() > cell_end_) break;
      const std::vector<std::size_t> order = round_order(living(), rng_);
      position_ = 0;
      while (!order.empty() && !run_round(round_, order) && round_repeats_ > 0 &&
             time_to_repeat()) {
        --round_repeats_;
      }
      ++rounds_done_;
    }
    for_living([&](std::size_t i) { trials_[i]->close_window(); }, true);
    for (const std::size_t i : cell_->contenders) {
      if (!trials_[i]) continue;
      trials_[i]->stop();
      Result& result = trials_[i]->result;
      if (result.latency.count() > 0) {
        result.blocks.emplace_back(block_, result.latency);
        if (plan().sweep) {
          block_percentiles_[result.variant].push_back(
              result.latency.quantile(plan().sweep->percentile / 100));
        }
      }
      if (results_[i]) {
        add_block(*results_[i], result);
      } else {
        results_[i] = std::move(result);
      }
    }
    trials_.clear();
  }

  // Starts and connects all and brings them to their pace. Everything of one kind is done for all
  // contenders before the next kind, so that no server idles longer than another.
  void prepare() {
    for (const std::size_t i : cell_->contenders) {
      if (!run_.variants[i].unavailable.empty()) continue;
      if (results_[i] && !results_[i]->error.empty()) continue;
      const std::uint64_t seed = options_.seed + i + block_ * plan().contenders.size();
      trials_[i] = std::make_unique<Trial>(plan().contenders[i], cell_->shape, seed);
      if (const std::string why = impossible(plan().contenders[i], cell_->shape); !why.empty()) {
        fail(i, why);
      }
    }
    StartOptions start;
    start.cpus = placement_.server;
    start.threads = plan().threads;
    start.interrupted = Load::interrupted;
    for_living([&](std::size_t i) {
      trials_[i]->start(options_.program, start);
      run_.variants[i].features = trials_[i]->features();
    });
    for_living([&](std::size_t i) { trials_[i]->connect(); });
    for (unsigned n = 0; n < std::max(plan().warm_up, kMostWarmUp); ++n) {
      for_living([&](std::size_t i) {
        if (n >= plan().warm_up && trials_[i]->warm()) return;
        trials_[i]->warm_up(plan().slice);
        if (n < plan().warm_up) count_slice();
      });
    }
    for_living([&](std::size_t i) { trials_[i]->open_window(); });
  }

  void finish() {
    CellRecord record = cell_record();
    run_.steal.median_share = median_steal();
    summarise(record, plan(), run_.placement, run_.steal);
    const bool any = std::any_of(record.results.begin(), record.results.end(), [](const Result& r) {
      return !r.slices.empty() || !r.error.empty();
    });
    if (any) run_.cells.push_back(std::move(record));
  }

  [[nodiscard]] CellRecord cell_record() const {
    CellRecord record{cell_->shape, {}};
    for (const std::size_t i : cell_->contenders) {
      if (results_[i]) record.results.push_back(*results_[i]);
    }
    return record;
  }

  // One slice of every contender, those that fail a gate again at the end. False if the hypervisor
  // took so much that the round does not count.
  bool run_round(std::uint32_t round, const std::vector<std::size_t>& order) {
    const Ticks before = ticks_.read();
    const auto began = Clock::now();
    Ticks at = before;
    std::vector<std::pair<std::size_t, std::size_t>> rows;  // contender, index of its row
    std::vector<std::size_t> waiting = order;
    while (!waiting.empty()) {
      std::vector<std::size_t> again;
      for_each(waiting, [&](std::size_t i) {
        const std::uint64_t delay_before = client_delay_.ns();
        SliceRow row = trials_[i]->slice(plan().slice);
        if (Load::interrupted()) return;  // cut short: not a slice of the plan
        row.client_delay_ns = client_delay_.ns() - delay_before;
        const Ticks now = ticks_.read();
        row.block = block_;
        row.round = round;
        row.position = position_++;
        row.steal_ticks = now.steal - at.steal;
        row.idle_ticks = now.idle - at.idle;
        at = now;
        std::vector<SliceRow>& slices = trials_[i]->result.slices;
        rows.emplace_back(i, slices.size());
        slices.push_back(row);
        slices.back().gate = judge_slice(row, cell_->shape, circumstances_, idle_so_far(i));
        if (slices.back().gate != Gate::kept && slice_repeats_[i] > 0 && time_to_repeat()) {
          --slice_repeats_[i];
          again.push_back(i);
        }
        count_slice();
      });
      waiting = std::move(again);
    }
    const auto elapsed = static_cast<std::uint64_t>(Nanos(Clock::now() - began).count());
    const std::uint64_t ticks = at.steal - before.steal;
    const bool took_too_much =
        stolen(ticks, ticks_.tick_ns(), elapsed, ticks_.cpus(), median_steal());
    steal_shares_.push_back(static_cast<double>(ticks * ticks_.tick_ns()) /
                            (static_cast<double>(elapsed) * static_cast<double>(ticks_.cpus())));
    for (const auto& [i, row] : rows) {
      if (!trials_[i]) continue;
      SliceRow& slice = trials_[i]->result.slices[row];
      if (slice.gate != Gate::kept) continue;
      if (took_too_much) {
        slice.gate = Gate::steal;
      } else {
        trials_[i]->keep();  // the kept slice of a round is always a contender's last one
      }
    }
    return !took_too_much || Load::interrupted();
  }

  // Of all blocks of the cell: one has too few slices to tell.
  [[nodiscard]] double idle_so_far(std::size_t i) const {
    std::vector<SliceRow> rows = trials_[i]->result.slices;
    if (results_[i])
      rows.insert(rows.end(), results_[i]->slices.begin(), results_[i]->slices.end());
    return idle_share(rows, circumstances_);
  }

  // Calls step for each; one that throws is out of the cell, its reason in its row.
  template <class Step>
  void for_each(const std::vector<std::size_t>& contenders, Step step,
                bool also_interrupted = false) {
    for (const std::size_t i : contenders) {
      if (Load::interrupted() && !also_interrupted) return;
      if (!trials_[i]->result.error.empty()) continue;
      try {
        step(i);
      } catch (const std::exception& error) {
        give_up(i, error);
      }
    }
  }
  template <class Step>
  void for_living(Step step, bool also_interrupted = false) {
    for_each(living(), step, also_interrupted);
  }

  [[nodiscard]] std::vector<std::size_t> living() const {
    std::vector<std::size_t> out;
    for (const std::size_t i : cell_->contenders) {
      if (trials_[i] && trials_[i]->result.error.empty()) out.push_back(i);
    }
    return out;
  }

  void give_up(std::size_t i, const std::exception& error) {
    if (Load::interrupted()) return;  // what an interrupted step throws is no fault of the server
    const auto* server_error = dynamic_cast<const ServerError*>(&error);
    if (server_error != nullptr && server_error->kind == ServerError::Kind::unavailable) {
      run_.variants[i].unavailable = error.what();
      progress_.say(
          fmt::format("{}: not available here: {}", plan().contenders[i].name, error.what()));
      trials_[i].reset();
      return;
    }
    fail(i, trials_[i]->explain(error));
    trials_[i]->stop();
  }

  void fail(std::size_t i, const std::string& why) {
    trials_[i]->result.error = why;
    progress_.say(fmt::format("{}: FAILED: {}", cell_->shape.name(), why));
  }

  void count_slice() {
    cell_done_ = std::min(cell_done_ + 1, planned_slices(*cell_));
    progress_.update(cell_name_, done_slices_ + cell_done_, total_slices_);
  }

  [[nodiscard]] unsigned allowed_repeats() const {
    return std::max(1U, static_cast<unsigned>(kRepeatShare * plan().slices));
  }
  // A repeat must leave enough time for the rounds of the plan that are still to come.
  [[nodiscard]] bool time_to_repeat() const {
    const auto now = Clock::now();
    const unsigned planned = plan().blocks * plan().slices_per_block();
    if (rounds_done_ == 0 || rounds_done_ >= planned) return now < cell_end_;
    return now + (now - cell_began_) / rounds_done_ * (planned - rounds_done_) < cell_end_;
  }
  [[nodiscard]] double median_steal() const {
    return steal_shares_.empty() ? 0 : median(steal_shares_);
  }

  const BenchOptions& options_;
  RunRecord& run_;
  const Placement& placement_;
  Progress& progress_;
  const std::vector<Cell> cells_;
  CpuTicks ticks_;
  RunDelay client_delay_;
  const Circumstances circumstances_;
  std::vector<double> steal_shares_;  // of every round of the session
  double total_slices_ = 0, done_slices_ = 0;

  // Of the cell that runs.
  const Cell* cell_ = nullptr;
  std::string cell_name_;
  std::vector<std::optional<Result>> results_;  // by contender, of the blocks that are over
  std::mt19937_64 rng_;                         // of the orders
  std::uint32_t block_ = 0;
  Trials trials_;                                                        // of the block that runs
  unsigned round_repeats_ = 0;                                           // left
  std::vector<unsigned> slice_repeats_;                                  // left, by contender
  std::map<std::string, std::vector<std::uint64_t>> block_percentiles_;  // sweeps; by variant
  std::uint32_t position_ = 0;                                           // in the round
  double cell_done_ = 0;                                                 // slices
  std::uint32_t round_ = 0;                                              // in the block
  unsigned rounds_done_ = 0;                                             // of all blocks
  Clock::time_point cell_began_;
  Clock::time_point cell_end_;        // when it must be over, also on a busy machine
  Clock::time_point no_more_blocks_;  // when those beyond the plan must be
};

}  // namespace

Preflight preflight(PlaceWish wish, unsigned server_threads) {
  const Cpus allowed = allowed_cpus();
  nlohmann::json machine = environment();  // before pinning: it records where the harness may run
  const MachineProbe probe = probe_machine(allowed);
  machine["probe"] = to_json(probe);
  try {
    return {std::move(machine), place(wish, probe, allowed, server_threads)};
  } catch (const std::invalid_argument& error) {
    throw UsageError(error.what());
  }
}

RunRecord run_bench(const BenchOptions& options, Progress& progress,
                    const std::function<void(const RunRecord&)>& after_cell) {
  for (const VariantRecord& v : options.variants) {
    if (v.unavailable.empty()) continue;
    progress.say(fmt::format("{}: not available here: {}", v.name, v.unavailable));
    if (v.name == options.plan.baseline) {
      progress.say(
          fmt::format("{} is the baseline: there will be no ratios; name another one with "
                      "--baseline",
                      v.name));
    }
  }
  const Preflight before = preflight(options.place, options.plan.threads);
  const Placement& placement = before.placement;
  progress.say(fmt::format("placement: {}: servers on CPU {}, client on CPU {} ({})",
                           placement.same ? "same" : "split", cpu_list(placement.server),
                           cpu_list(placement.client), placement.reason));
  return run_bench(options, before, progress, after_cell);
}

RunRecord run_bench(const BenchOptions& options, const Preflight& before, Progress& progress,
                    const std::function<void(const RunRecord&)>& after_cell) {
  const auto began = Clock::now();
  const Placement& placement = before.placement;
  RunRecord run;
  run.command = options.command;
  run.seed = options.seed;
  run.started = utc_now();
  run.plan = options.plan;
  run.partial = true;
  run.variants = options.variants;
  run.environment = before.environment;
  run.placement = record_placement(options.place, placement);
  const Pinned pinned(placement.client);
  const auto stamp = [&](RunRecord& record) {
    record.duration_s = std::chrono::duration<double>(Clock::now() - began).count();
  };
  BenchOptions measured = options;
  if (!options.plan.shares.empty() || options.plan.sweep) {
    StartOptions start;
    start.cpus = placement.server;
    start.threads = options.plan.threads;
    start.interrupted = Load::interrupted;
    measured.plan.peaks = run.plan.peaks = calibrate(options, start, progress);
    measured.plan.calibrated = run.plan.calibrated = true;
  }
  Runner runner(measured, run, placement, progress);
  const auto checkpoint = [&](const RunRecord& record) {
    stamp(run);
    after_cell(record);
  };
  if (options.plan.sweep) {
    runner.sweep(checkpoint);
  } else {
    runner.run(checkpoint);
  }
  stamp(run);
  progress.clear();
  return run;
}

}  // namespace echolab::harness
