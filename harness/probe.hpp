// Measurements of the machine itself, taken before anything is compared: what a system call, a
// wake-up and a timer cost here decides what can be seen at all. All together well under a second.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "harness/process.hpp"

namespace echolab::harness {

// From the write that wakes a sleeping thread to that thread running: half a round trip.
struct WakeUp {
  double median_us = 0;
  double p99_us = 0;
  unsigned samples = 0;
};

struct MachineProbe {
  double syscall_ns = 0;            // the cheapest system call, by raw syscall(2)
  double clock_ns = 0;              // one clock_gettime(CLOCK_MONOTONIC)
  WakeUp same_cpu;                  // both threads on one CPU
  std::optional<WakeUp> other_cpu;  // on two CPUs; empty where only one may be used
  double sleep_late_median_us = 0;  // how late a sleep of 100 us ends
  double sleep_late_p99_us = 0;
  double steal_percent = 0;  // of these CPUs' time while probing, taken by the hypervisor
};

// Moves the calling thread between the CPUs given (not empty) and puts it back. Throws
// std::system_error.
MachineProbe probe_machine(const Cpus&);
// { "syscall_ns", "clock_ns", "wake_same_cpu": { "median_us", "p99_us", "samples" },
//   "wake_other_cpu": {...} or null, "sleep_late_median_us", "sleep_late_p99_us", "steal_percent" }
nlohmann::json to_json(const MachineProbe&);

// Which CPUs the servers and the client get.
struct Placement {
  bool same = true;  // client and server share their CPUs
  Cpus server;
  Cpus client;
  std::string reason;  // one line
};
enum class PlaceWish { automatic, same, split };
PlaceWish parse_place(const std::string&);  // "same", "split"; all else is left to us
// The server gets the first `server_cpus` CPUs allowed (at least 1). `split`: the client gets the
// next one, of another core where there is one. Throws std::invalid_argument, one line, when the
// wish cannot be met.
Placement place(PlaceWish, const MachineProbe&, const Cpus& allowed, unsigned server_cpus);

}  // namespace echolab::harness
