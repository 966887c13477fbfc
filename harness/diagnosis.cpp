#include "harness/diagnosis.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cstdint>
#include <optional>

namespace echolab::harness {
namespace {

using nlohmann::json;
using Level = Finding::Level;

// Where a fact starts to matter. A plain system call takes 50 to 300 ns, a clock reading without
// one 20 to 60 ns; beyond these something intercepts them.
constexpr double kDearCallNs = 500;
constexpr double kInterceptedCallNs = 2000;
constexpr double kDearClockNs = 150;
constexpr double kNotableStealPercent = 2;
constexpr double kBadStealPercent = 10;
constexpr double kLateTimerUs = 200;  // the default timer slack is 50 us
constexpr double kBusyShare = 0.5;    // of the CPUs, by the load average
// The client holds its connections to every server of a cell at once: 1000 to each of the servers
// of the default matrix, and some more.
constexpr std::uint64_t kDefaultMatrixFiles = 8'192;
constexpr std::uint64_t kBigLoadFiles = 10'240;     // 10 000 connections to one server
constexpr std::uint64_t kRingMemory = 1024 * 1024;  // bytes that a ring may lock, old kernels
constexpr int kBacklog = 1024;                      // connections that arrive at once

// A fact of the record; null if it is not there.
const json& at(const json& environment, const char* pointer) {
  static const json kNone;
  const json::json_pointer place(pointer);
  return environment.contains(place) ? environment.at(place) : kNone;
}
std::string text(const json& value) {
  if (value.is_null()) return "unknown";
  return value.is_string() ? value.get<std::string>() : value.dump();
}
bool has(const json& list, const char* name) {
  return std::find(list.begin(), list.end(), json(name)) != list.end();
}
// Numbers count as they are, "unlimited" as more than anything.
std::optional<double> limit(const json& value) {
  if (value.is_number()) return value.get<double>();
  if (value == "unlimited") return 1e18;
  return std::nullopt;
}

Finding io_uring(const json& environment) {
  const json& ring = at(environment, "/io_uring");
  if (!ring.value("available", false)) {
    return {Level::warn, "io_uring", "not available",
            "its variants are left out. " + text(ring.value("why_not", json()))};
  }
  const std::string value = fmt::format(
      "{} operations, {} features",
      ring["opcodes"].size() + ring["unknown_opcodes"].get<std::size_t>(), ring["features"].size());
  if (!has(ring["setup_flags"], "defer_taskrun")) {
    return {
        Level::note, "io_uring", value,
        "without DEFER_TASKRUN (Linux 6.1) completions interrupt the server: the default variant "
        "is slower than on newer kernels."};
  }
  if (!has(ring["registrations"], "buffer_ring_incremental")) {
    return {Level::note, "io_uring", value,
            "without incremental buffers (Linux 6.12) small messages use up a whole buffer each."};
  }
  return {Level::ok, "io_uring", value, "everything that the variants ask for is there."};
}

Finding mitigations(const json& environment) {
  std::string active;
  for (const auto& [name, line] : at(environment, "/kernel/vulnerabilities").items()) {
    if (!line.is_string() || !line.get_ref<const std::string&>().starts_with("Mitigation"))
      continue;
    active += (active.empty() ? "" : ", ") + name;
  }
  if (active.empty()) {
    return {Level::ok, "mitigations", "none active",
            "system calls cost what the hardware charges."};
  }
  return {Level::note, "mitigations", active,
          "they make every system call dearer: servers with few system calls look better here than "
          "on a machine without."};
}

Finding system_call(const MachineProbe& probe) {
  const std::string value = fmt::format("{:.0f} ns", probe.syscall_ns);
  if (probe.syscall_ns > kInterceptedCallNs) {
    return {Level::warn, "system call", value,
            "something intercepts system calls (a sandbox, a tracer): it is measured, not the "
            "servers."};
  }
  if (probe.syscall_ns > kDearCallNs) {
    return {Level::note, "system call", value,
            "dear: batching system calls pays more here than elsewhere."};
  }
  return {Level::ok, "system call", value, "nothing intercepts it."};
}

Finding clock_source(const json& environment, const MachineProbe& probe) {
  const std::string value = fmt::format(
      "{}, {:.0f} ns a reading", text(at(environment, "/machine/clocksource")), probe.clock_ns);
  if (probe.clock_ns > kDearClockNs) {
    return {
        Level::warn, "clock source", value,
        "reading the clock needs a system call or slow hardware: each measured request pays for it "
        "on the client's side. Choose tsc if the machine has a stable one."};
  }
  return {Level::ok, "clock source", value, "cheap enough to time every request."};
}

Finding steal(const json& environment, const MachineProbe& probe) {
  const json& boot = at(environment, "/machine/steal_percent_since_boot");
  const std::string value = fmt::format(
      "{:.1f} % now, {} % since boot", probe.steal_percent,
      boot.is_number() ? fmt::format("{:.1f}", boot.get<double>()) : std::string("unknown"));
  if (probe.steal_percent > kBadStealPercent) {
    return {
        Level::warn, "steal", value,
        "the host gives this machine's CPUs to others: many slices will be dropped. Come back at a "
        "quieter time."};
  }
  if (probe.steal_percent > kNotableStealPercent ||
      (boot.is_number() && boot.get<double>() > kNotableStealPercent)) {
    return {Level::note, "steal", value,
            "the host shares these CPUs: trust ratios of interleaved slices, not single numbers."};
  }
  return {Level::ok, "steal", value, "the CPUs are ours while we measure."};
}

Finding wake_up(const MachineProbe& probe, const Cpus& allowed) {
  const std::string value =
      fmt::format("{:.1f} us on the same CPU (p99 {:.1f}), {} on another", probe.same_cpu.median_us,
                  probe.same_cpu.p99_us,
                  probe.other_cpu ? fmt::format("{:.1f} us (p99 {:.1f})",
                                                probe.other_cpu->median_us, probe.other_cpu->p99_us)
                                  : std::string("not measured"));
  const Placement placement = place(PlaceWish::automatic, probe, allowed, 1);
  if (!placement.same) {
    return {Level::ok, "wake-up", value,
            "client and server get CPUs of their own (--place split)."};
  }
  if (allowed.size() < 2) {
    return {Level::note, "wake-up", value,
            "client and server share the only CPU: requests/s include the client's work, CPU per "
            "request does not."};
  }
  return {Level::note, "wake-up", value,
          "waking another CPU is so dear that with few connections it would be most of what is "
          "measured: client and server share a CPU (--place same), so requests/s include the "
          "client's work; CPU per request does not."};
}

Finding timers(const MachineProbe& probe) {
  const std::string value = fmt::format("a sleep ends {:.0f} us late (p99 {:.0f})",
                                        probe.sleep_late_median_us, probe.sleep_late_p99_us);
  if (probe.sleep_late_median_us > kLateTimerUs) {
    return {Level::note, "timers", value,
            "paced requests and deadlines come late by that much; open-loop latency includes it."};
  }
  return {Level::ok, "timers", value, "late by less than what most latencies are."};
}

Finding frequency(const json& environment) {
  const json& governor = at(environment, "/machine/governor");
  const json& turbo = at(environment, "/machine/turbo");
  const std::string value =
      fmt::format("governor {}, turbo {}", text(governor),
                  turbo.is_boolean() ? (turbo.get<bool>() ? "on" : "off") : "unknown");
  if (governor.is_null()) {
    return {Level::note, "clock frequency", value,
            "not shown here, as in most virtual machines: it may change while we measure. "
            "Interleaved slices cancel slow changes."};
  }
  if (governor != "performance") {
    return {
        Level::note, "clock frequency", value,
        "it follows the load, so servers that sleep more run slower when they wake. For steadier "
        "numbers: cpupower frequency-set -g performance."};
  }
  return {Level::ok, "clock frequency", value, "steady."};
}

Finding open_files(const json& environment) {
  const json& hard = at(environment, "/limits/nofile/hard");
  const double most = limit(hard).value_or(0);
  const std::string value = text(hard) + " (hard limit)";
  const std::string how = " Raise it: ulimit -Hn as root, or LimitNOFILE= of the service.";
  if (most < static_cast<double>(kDefaultMatrixFiles)) {
    return {Level::warn, "open files", value,
            fmt::format("cells with 1000 connections need about {}.", kDefaultMatrixFiles) + how};
  }
  if (most < static_cast<double>(kBigLoadFiles)) {
    return {Level::note, "open files", value, "not enough for a load of 10 000 connections." + how};
  }
  return {Level::ok, "open files", value, "enough for 10 000 connections."};
}

Finding locked_memory(const json& environment) {
  const json& soft = at(environment, "/limits/memlock_bytes/soft");
  const std::string value = text(soft) + (soft.is_number() ? " bytes" : "");
  if (limit(soft).value_or(0) < static_cast<double>(kRingMemory)) {
    return {Level::note, "locked memory", value,
            "kernels before 5.12 charge io_uring's rings to it: raise it (ulimit -l) if rings are "
            "refused."};
  }
  return {Level::ok, "locked memory", value, "enough for io_uring on any kernel."};
}

Finding cpus(const json& environment, const Cpus& allowed) {
  const json& quota = at(environment, "/limits/cpu_quota_cpus");
  std::string value = fmt::format("{} of {} allowed ({})", allowed.size(),
                                  text(at(environment, "/machine/cpus_online")), cpu_list(allowed));
  if (quota.is_number()) {
    return {
        Level::warn, "CPUs", value + fmt::format(", quota {:.2g}", quota.get<double>()),
        "when a control group has used up its quota, all its threads stand still until the next "
        "period: latencies show that, not the servers. Run without a quota."};
  }
  return {Level::ok, "CPUs", std::move(value), "no quota that could stop them."};
}

Finding filters(const json& environment) {
  const std::string seccomp = text(at(environment, "/limits/seccomp"));
  if (seccomp == "filter" || seccomp == "strict") {
    return {
        Level::note, "seccomp", seccomp,
        "a container's filter runs at every system call (it is in the cost above) and may refuse "
        "io_uring."};
  }
  return {Level::ok, "seccomp", seccomp, "no filter at system calls."};
}

Finding hypervisor(const json& environment) {
  const std::string kind = text(at(environment, "/machine/hypervisor"));
  if (kind == "none") return {Level::ok, "hypervisor", kind, "bare metal."};
  return {
      Level::note, "hypervisor", kind,
      "a virtual machine: one process measured twice may differ by 10 % and more. Compare within "
      "one run; absolute numbers hold for this machine only."};
}

Finding load(const json& environment, const Cpus& allowed) {
  const json& average = at(environment, "/machine/load_average_1min");
  if (!average.is_number()) return {Level::note, "other load", "unknown", "it is not shown here."};
  const double share = average.get<double>() / static_cast<double>(allowed.size());
  const std::string value = fmt::format("load average {:.2f}", average.get<double>());
  if (share > kBusyShare) {
    return {Level::warn, "other load", value,
            "something else is running: stop it, or wait a minute."};
  }
  return {Level::ok, "other load", value, "the machine is idle."};
}

Finding backlog(const json& environment) {
  const std::string value = text(at(environment, "/kernel/sysctls/net.core.somaxconn"));
  if (std::atoi(value.c_str()) < kBacklog) {
    return {Level::note, "accept queue", value,
            "when a thousand clients connect at once some retry after a second; raise sysctl "
            "net.core.somaxconn."};
  }
  return {Level::ok, "accept queue", value, "a thousand clients may connect at once."};
}

Finding build(const json& environment) {
  const std::string type = text(at(environment, "/build/type"));
  const std::string sanitizers = text(at(environment, "/build/sanitizers"));
  const bool sanitized = !sanitizers.empty() && sanitizers != "unknown";
  const std::string value = fmt::format("{}, {}{}", type, text(at(environment, "/build/compiler")),
                                        sanitized ? ", sanitizers " + sanitizers : std::string());
  if (sanitized || type != "Release") {
    return {Level::warn, "build", value, "for tests, not for numbers: measure the release build."};
  }
  return {Level::ok, "build", value, "optimised, without checks."};
}

}  // namespace

const char* name_of(Finding::Level level) {
  switch (level) {
    case Level::ok:
      return "ok";
    case Level::note:
      return "note";
    case Level::warn:
      break;
  }
  return "warn";
}

std::vector<Finding> diagnose(const json& environment, const MachineProbe& probe,
                              const Cpus& allowed) {
  return {{Level::ok, "kernel", text(at(environment, "/kernel/release")),
           "most of what is measured is this kernel's TCP: compare runs of the same one."},
          io_uring(environment),
          mitigations(environment),
          system_call(probe),
          clock_source(environment, probe),
          cpus(environment, allowed),
          wake_up(probe, allowed),
          timers(probe),
          steal(environment, probe),
          hypervisor(environment),
          frequency(environment),
          load(environment, allowed),
          open_files(environment),
          locked_memory(environment),
          backlog(environment),
          filters(environment),
          build(environment)};
}

}  // namespace echolab::harness
