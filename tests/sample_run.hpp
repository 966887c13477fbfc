// A small run made by hand: two contenders, one closed and one open cell, a few slices.
#pragma once

#include <string>

#include "harness/run_record.hpp"
#include "harness/summary.hpp"

namespace echolab::harness {

// A slice of a closed loop that Little's law holds for.
inline SliceRow sample_slice(std::uint32_t round, std::uint64_t requests, std::uint64_t cpu_ns) {
  SliceRow row;
  row.round = round;
  row.position = round % 2;
  row.requests = requests;
  row.elapsed_ns = 10'000'000;
  row.server_cpu_ns = cpu_ns;
  row.client_cpu_ns = row.elapsed_ns > cpu_ns ? row.elapsed_ns - cpu_ns : 0;  // on the same CPU
  row.latency_mean_ns = row.elapsed_ns / requests;
  row.p50_ns = row.latency_mean_ns;
  row.p99_ns = 2 * row.latency_mean_ns;
  row.max_ns = 3 * row.latency_mean_ns;
  row.inflight_mean = 1;
  return row;
}

// `cpu_ns`: what a slice costs the server.
inline Result sample_result(const std::string& variant, bool open_loop, std::uint64_t cpu_ns) {
  Result result;
  result.variant = variant;
  if (open_loop) result.raw.emplace();
  for (std::uint32_t round = 0; round < 8; ++round) {
    SliceRow row = sample_slice(round, 4000 + round, cpu_ns + round);
    row.block = round;  // of one slice each
    if (round == 2) row.gate = Gate::steal;
    if (open_loop) row.due = row.requests;
    result.slices.push_back(row);
    result.window.requests += row.requests;
    if (row.gate != Gate::kept) continue;
    result.latency.record(row.latency_mean_ns, row.requests);
    Histogram of_block;
    of_block.record(row.latency_mean_ns, row.requests);
    result.blocks.emplace_back(round, of_block);
    if (open_loop) result.raw->record(row.latency_mean_ns / 2, row.requests);
  }
  Window& w = result.window;
  w.cpu_ns = 8 * cpu_ns;
  w.user_ns = 2 * cpu_ns;
  w.system_ns = 4 * cpu_ns;
  w.voluntary_switches = 40;
  w.involuntary_switches = 4;
  w.run_delay_ns = 30'000'000;
  w.threads = 2;
  w.rss_before_bytes = 4'000'000;
  w.rss_connected_bytes = 4'640'000;
  w.memory = {{16, 4'160'000, 34, 40'960}, {64, 4'400'000, 130, 237'568}};
  w.counters = {{"cq_overflows", 0}, {"events", 32028}, {"sys_recv", 32028},
                {"sys_send", 32028}, {"sys_wait", 40},  {"wakeups", 40}};
  w.batches = {0, 1, 2, 37};
  return result;
}

// Leaves the blocks so few requests that none has a p99.
inline void few_samples(CellRecord& cell) {
  for (Result& result : cell.results) {
    for (BlockRow& block : result.blocks) {
      block.samples = 1000;
      block.p99_ns.reset();
    }
  }
}

inline RunRecord sample_run() {
  RunRecord run;
  run.command = {"harness", "bench", "-o", "a folder"};
  run.seed = 7;
  run.started = "2025-01-31T23:59:59Z";
  run.duration_s = 12.5;
  run.environment = {
      {"machine",
       {{"cpu_model", "Example CPU"},
        {"cpus_online", 2},
        {"hypervisor", "none"},
        {"clocksource", "tsc"},
        {"governor", nullptr}}},
      {"kernel", {{"release", "6.1.0"}, {"vulnerabilities", {{"spectre_v2", "Mitigation: A"}}}}},
      {"system", nlohmann::json::object()},
      {"limits", nlohmann::json::object()},
      {"io_uring", nlohmann::json::object()},
      {"libraries", {{"libuv", "1.44.2"}}},
      {"build", {{"compiler", "g++ 12.2"}, {"type", "Release"}, {"dirty", false}}},
      {"probe", nlohmann::json::object()}};
  run.plan.contenders = {{"epoll", ""}, {"other", "other-server {port}"}};
  run.plan.add_copy();
  run.plan.connections = {64};
  run.plan.sizes = {64};
  run.plan.depths = {1};
  run.plan.rates = {0, 400000};
  run.plan.shares = {0.25};
  run.plan.peaks = {{64, 64, "epoll", 1'600'000}, {64, 64, "generator", 2'000'000}};
  run.plan.slices = 8;
  run.plan.blocks = run.plan.most_blocks = 8;
  run.placement = {"auto", "same", {1}, {1}, "one CPU is all there is"};
  run.steal = {10'000'000, 0.0125};
  run.variants = {{"epoll", "", "", {{"ring", true, false, "too old"}}},
                  {"other", "other-server {port}", "", {}},
                  {"epoll (A/A)", "", "", {}}};
  for (const double rate : run.plan.rates) {
    const bool open = rate > 0;
    CellRecord cell{{64, 64, open ? kOpenLoopDepth : 1, rate}, {}};
    cell.results.push_back(sample_result("epoll", open, 4'000'000));
    cell.results.push_back(sample_result("other", open, 8'000'000));
    cell.results.back().window.counters.reset();
    cell.results.back().window.batches.reset();
    cell.results.push_back(sample_result("epoll (A/A)", open, 4'001'000));
    summarise(cell, run.plan, run.placement, run.steal);
    run.cells.push_back(std::move(cell));
  }
  return run;
}

}  // namespace echolab::harness
