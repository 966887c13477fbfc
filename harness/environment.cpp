#include "harness/environment.hpp"

#include <fmt/core.h>
#include <gnu/libc-version.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>
#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <exception>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "harness/commit.hpp"
#include "harness/files.hpp"
#include "harness/process.hpp"
#include "harness/uring_probe.hpp"

namespace echolab::harness {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr Millis kUnpackTimeout{2'000};  // for zcat on 300 KiB

template <typename T>
json or_null(const std::optional<T>& value) {
  return value ? json(*value) : json();
}

// A file of one line, without its newline.
std::optional<std::string> line_of(const std::string& path) {
  auto text = read_text(path);
  if (!text) return std::nullopt;
  text->erase(text->find_last_not_of(" \t\r\n") + 1);
  if (text->empty()) return std::nullopt;
  return text;
}

std::optional<std::int64_t> number_in(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}
std::optional<std::int64_t> number_of(const std::string& path) {
  const auto line = line_of(path);
  return line ? number_in(*line) : std::nullopt;
}

// The value of the first line that starts with `key`, after its separator and blanks.
std::optional<std::string> value_after(const std::optional<std::string>& text, std::string_view key,
                                       char separator) {
  std::string_view rest = text ? std::string_view(*text) : std::string_view();
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (!line.starts_with(key)) continue;
    const std::size_t at = line.find_first_not_of(" \t", key.size());
    if (at == std::string_view::npos || line[at] != separator) continue;
    const std::size_t start = line.find_first_not_of(" \t", at + 1);
    return std::string(start == std::string_view::npos ? "" : line.substr(start));
  }
  return std::nullopt;
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator entry(folder, error);
  while (!error && entry != fs::directory_iterator()) {
    names.push_back(entry->path().filename().native());
    entry.increment(error);
  }
  std::sort(names.begin(), names.end());
  return names;
}

// "none" on bare metal; where the processor does not say: null.
std::optional<std::string> hypervisor() {
#if defined(__x86_64__) || defined(__i386__)
  constexpr unsigned kHypervisorBit = 1U << 31;     // CPUID leaf 1, ECX: set by every hypervisor
  constexpr unsigned kHypervisorLeaf = 0x40000000;  // its name in EBX, ECX, EDX
  unsigned a = 0;
  std::array<unsigned, 3> bcd{};
  unsigned ecx = 0;
  unsigned unused_b = 0;
  unsigned unused_d = 0;
  if (__get_cpuid(1, &a, &unused_b, &ecx, &unused_d) == 0) return std::nullopt;
  if ((ecx & kHypervisorBit) == 0) return "none";
  __cpuid(kHypervisorLeaf, a, bcd[0], bcd[1], bcd[2]);
  std::array<char, sizeof bcd + 1> name{};
  std::memcpy(name.data(), bcd.data(), sizeof bcd);
  std::string text(name.data());
  text.erase(text.find_last_not_of(' ') + 1);
  if (text.empty() ||
      !std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; })) {
    return "unnamed";
  }
  return text;
#else
  return std::nullopt;
#endif
}

json topology() {
  const std::string base = "/sys/devices/system/cpu/";
  std::set<std::string> sockets;
  std::set<std::string> cores;
  std::size_t cpus = 0;
  for (const std::string& name : names_in(base)) {
    if (!name.starts_with("cpu") || !number_in(std::string_view(name).substr(3))) continue;
    const auto socket = line_of(base + name + "/topology/physical_package_id");
    const auto core = line_of(base + name + "/topology/core_id");
    if (!socket || !core) continue;  // offline
    ++cpus;
    sockets.insert(*socket);
    cores.insert(*socket + "/" + *core);
  }
  if (cpus == 0) return nullptr;
  return {{"sockets", sockets.size()},
          {"cores", cores.size()},
          {"threads_per_core", static_cast<double>(cpus) / static_cast<double>(cores.size())}};
}

json turbo() {
  const std::string base = "/sys/devices/system/cpu/";
  if (const auto off = number_of(base + "intel_pstate/no_turbo")) return *off == 0;
  if (const auto on = number_of(base + "cpufreq/boost")) return *on != 0;
  return nullptr;
}

json steal_since_boot() {
  constexpr std::size_t kSteal = 7;  // field of the cpu line of proc(5), from 0
  const auto line = read_text("/proc/stat");
  if (!line || !line->starts_with("cpu ")) return nullptr;
  std::array<unsigned long long, kSteal + 1> ticks{};
  if (std::sscanf(line->c_str(), "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &ticks[0],
                  &ticks[1], &ticks[2], &ticks[3], &ticks[4], &ticks[5], &ticks[6],
                  &ticks[7]) != static_cast<int>(ticks.size())) {
    return nullptr;
  }
  double total = 0;
  for (const auto t : ticks) total += static_cast<double>(t);
  return total > 0 ? json(100.0 * static_cast<double>(ticks[kSteal]) / total) : json();
}

json machine() {
  const auto cpuinfo = read_text("/proc/cpuinfo");
  const std::string base = "/sys/devices/system/";
  std::size_t nodes = 0;
  for (const std::string& name : names_in(base + "node")) {
    if (name.starts_with("node") && number_in(std::string_view(name).substr(4))) ++nodes;
  }
  utsname names{};
  ::uname(&names);
  std::array<double, 1> load{};
  const bool load_known = ::getloadavg(load.data(), 1) == 1;
  return {{"architecture", names.machine},
          {"cpu_model", or_null(value_after(cpuinfo, "model name", ':'))},
          {"microcode", or_null(value_after(cpuinfo, "microcode", ':'))},
          {"cpus_online", ::sysconf(_SC_NPROCESSORS_ONLN)},
          {"topology", topology()},
          {"numa_nodes", nodes > 0 ? json(nodes) : json()},
          {"governor", or_null(line_of(base + "cpu/cpu0/cpufreq/scaling_governor"))},
          {"turbo", turbo()},
          {"hypervisor", or_null(hypervisor())},
          {"clocksource", or_null(line_of(base + "clocksource/clocksource0/current_clocksource"))},
          {"steal_percent_since_boot", steal_since_boot()},
          {"memory_bytes", static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                               static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE))},
          {"load_average_1min", load_known ? json(load[0]) : json()}};
}

std::optional<std::string> kernel_configuration(const std::string& release) {
  if (auto text = read_text("/boot/config-" + release)) return text;
  if (::access("/proc/config.gz", R_OK) != 0) return std::nullopt;
  try {
    Output unpacked = run_program({"zcat", "/proc/config.gz"}, kUnpackTimeout);
    if (unpacked.exit_status == 0) return std::move(unpacked.out);
  } catch (const std::exception&) {  // no zcat: the fact stays unknown
  }
  return std::nullopt;
}

// As the kernel names its build; a dynamic one can be changed at boot by preempt=.
std::optional<std::string> preemption(std::string_view version) {
  for (const std::string_view kind : {"PREEMPT_RT", "PREEMPT_DYNAMIC", "PREEMPT"}) {
    if (version.find(kind) != std::string_view::npos) return std::string(kind);
  }
  return "none";
}

// What was given to the kernel. What names disks, programs, addresses or users is left out, and
// what follows "--" is for init: both say nothing about speed, and results are shown to others.
std::optional<std::string> command_line() {
  constexpr std::array kPrivate = {"BOOT_IMAGE", "root",     "rootflags",   "init",     "rdinit",
                                   "initrd",     "resume",   "ip",          "nfsroot",  "nfsaddrs",
                                   "console",    "hostname", "cryptdevice", "cryptkey", "ds"};
  const auto all = line_of("/proc/cmdline");
  if (!all) return std::nullopt;
  std::string kept;
  std::string_view rest = *all;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find(' '), rest.size());
    const std::string_view word = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (word == "--") break;
    const std::string_view name = word.substr(0, word.find('='));
    if (word.empty() || name.starts_with("rd.") || name.starts_with("systemd.") ||
        std::find(kPrivate.begin(), kPrivate.end(), name) != kPrivate.end()) {
      continue;
    }
    if (!kept.empty()) kept += ' ';
    kept += word;
  }
  return kept;
}

json sysctls() {
  // What decides about buffers, queues, wake-ups and limits on a loopback connection.
  constexpr std::array kNames = {"net.core.somaxconn",
                                 "net.core.rmem_default",
                                 "net.core.rmem_max",
                                 "net.core.wmem_default",
                                 "net.core.wmem_max",
                                 "net.core.netdev_max_backlog",
                                 "net.core.busy_poll",
                                 "net.core.busy_read",
                                 "net.core.default_qdisc",
                                 "net.ipv4.tcp_rmem",
                                 "net.ipv4.tcp_wmem",
                                 "net.ipv4.tcp_mem",
                                 "net.ipv4.tcp_autocorking",
                                 "net.ipv4.tcp_congestion_control",
                                 "net.ipv4.tcp_max_syn_backlog",
                                 "net.ipv4.tcp_slow_start_after_idle",
                                 "net.ipv4.tcp_timestamps",
                                 "net.ipv4.ip_local_port_range",
                                 "net.netfilter.nf_conntrack_max",
                                 "kernel.io_uring_disabled",
                                 "kernel.sched_autogroup_enabled",
                                 "kernel.timer_migration",
                                 "kernel.numa_balancing",
                                 "kernel.threads-max",
                                 "kernel.pid_max",
                                 "vm.max_map_count",
                                 "vm.overcommit_memory",
                                 "fs.file-max",
                                 "fs.nr_open"};
  json values = json::object();
  for (const char* name : kNames) {
    std::string path = std::string("/proc/sys/") + name;
    std::replace(path.begin() + 10, path.end(), '.', '/');
    auto value = line_of(path);
    if (value) std::replace(value->begin(), value->end(), '\t', ' ');
    values[name] = or_null(value);
  }
  return values;
}

json kernel() {
  utsname names{};
  ::uname(&names);
  json vulnerabilities = json::object();
  const std::string base = "/sys/devices/system/cpu/vulnerabilities";
  for (const std::string& name : names_in(base)) {
    vulnerabilities[name] = or_null(line_of(base + "/" + name));
  }
  const auto hz = value_after(kernel_configuration(names.release), "CONFIG_HZ", '=');
  return {{"release", names.release},
          {"version", names.version},
          {"command_line", or_null(command_line())},
          {"hz", or_null(hz ? number_in(*hz) : std::nullopt)},
          {"preemption", or_null(preemption(names.version))},
          {"vulnerabilities", std::move(vulnerabilities)},
          {"sysctls", sysctls()}};
}

// The kind of container where it leaves a mark; null says nothing either way.
std::optional<std::string> container() {
  if (auto named = line_of("/run/systemd/container")) return named;
  if (::access("/.dockerenv", F_OK) == 0) return "docker";
  if (::access("/run/.containerenv", F_OK) == 0) return "podman";
  if (::access("/var/run/secrets/kubernetes.io", F_OK) == 0) return "kubernetes";
  return std::nullopt;
}

json system_record() {
  auto name = value_after(read_text("/etc/os-release"), "PRETTY_NAME", '=');
  if (name) name->erase(std::remove(name->begin(), name->end(), '"'), name->end());
  return {{"distribution", or_null(name)}, {"container", or_null(container())}};
}

// The folder of this process in a control group hierarchy: of a version 1 controller, or (empty
// name) of version 2. Nothing if it is not mounted where it usually is.
std::optional<fs::path> group_folder(const std::string& controller) {
  const auto text = read_text("/proc/self/cgroup");
  std::string_view rest = text ? std::string_view(*text) : std::string_view();
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string controllers = fmt::format(",{},", line.substr(first + 1, second - first - 1));
    const bool wanted = controller.empty()
                            ? controllers == ",,"
                            : controllers.find("," + controller + ",") != std::string::npos;
    if (!wanted) continue;
    fs::path folder = "/sys/fs/cgroup/" + controller;
    folder += line.substr(second + 1);
    std::error_code error;
    if (fs::exists(folder / "cgroup.procs", error)) return folder;
  }
  return std::nullopt;
}

// The tightest value of a limit from this group up to the root; `read` gives one group's, if it has
// any. Values from `no_limit` on are none.
template <typename Read>
json tightest(std::optional<fs::path> folder, double no_limit, Read read) {
  if (!folder) return nullptr;
  double least = no_limit;
  for (fs::path at = *folder; at.native().size() >= sizeof "/sys/fs/cgroup" - 1;
       at = at.parent_path()) {
    if (const auto value = read(at.native())) least = std::min(least, static_cast<double>(*value));
    if (!at.has_relative_path()) break;
  }
  return least < no_limit ? json(least) : json("unlimited");
}

struct GroupLimits {
  json version = nullptr;
  json cpus = nullptr;
  json memory = nullptr;
};

GroupLimits group_limits() {
  constexpr double kNoCpus = 1e6;     // more CPUs than any machine has
  constexpr double kNoMemory = 1e18;  // bytes; version 1 shows 2^63 rounded to a page for no limit
  GroupLimits limits;
  const auto unified = group_folder("");
  if (unified && fs::exists("/sys/fs/cgroup/cgroup.controllers")) {
    limits.version = 2;
    limits.cpus = tightest(unified, kNoCpus, [](const std::string& at) -> std::optional<double> {
      double quota = 0;
      double period = 0;
      const auto line = line_of(at + "/cpu.max");
      if (!line || std::sscanf(line->c_str(), "%lf %lf", &quota, &period) != 2) return std::nullopt;
      return quota / period;
    });
    limits.memory = tightest(unified, kNoMemory,
                             [](const std::string& at) { return number_of(at + "/memory.max"); });
    return limits;
  }
  const auto cpu = group_folder("cpu");
  const auto memory = group_folder("memory");
  if (cpu || memory) limits.version = 1;
  limits.cpus = tightest(cpu, kNoCpus, [](const std::string& at) -> std::optional<double> {
    const auto quota = number_of(at + "/cpu.cfs_quota_us");
    const auto period = number_of(at + "/cpu.cfs_period_us");
    if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
    return static_cast<double>(*quota) / static_cast<double>(*period);
  });
  limits.memory = tightest(memory, kNoMemory, [](const std::string& at) {
    return number_of(at + "/memory.limit_in_bytes");
  });
  return limits;
}

json limit_value(rlim_t value) {
  return value == RLIM_INFINITY ? json("unlimited") : json(static_cast<std::uint64_t>(value));
}

json limits() {
  const auto status = read_text("/proc/self/status");
  const auto bit = [&](std::string_view key) { return value_after(status, key, ':'); };
  json seccomp = nullptr;
  if (const auto mode = bit("Seccomp")) {
    seccomp = *mode == "0" ? "off" : *mode == "1" ? "strict" : "filter";
  }
  const auto no_new_privs = bit("NoNewPrivs");
  GroupLimits group = group_limits();
  json record = {{"cgroup_version", std::move(group.version)},
                 {"cpu_quota_cpus", std::move(group.cpus)},
                 {"memory_max_bytes", std::move(group.memory)},
                 {"affinity", cpu_list(allowed_cpus())},
                 {"memory_nodes", or_null(bit("Mems_allowed_list"))},
                 {"seccomp", std::move(seccomp)},
                 {"no_new_privs", no_new_privs ? json(*no_new_privs != "0") : json()},
                 {"capabilities_effective", or_null(bit("CapEff"))},
                 {"root", ::geteuid() == 0}};
  constexpr std::array kResources = {std::pair{RLIMIT_NOFILE, "nofile"},
                                     std::pair{RLIMIT_MEMLOCK, "memlock_bytes"},
                                     std::pair{RLIMIT_NPROC, "processes"}};
  for (const auto& [resource, name] : kResources) {
    rlimit limit{};
    const bool known = ::getrlimit(resource, &limit) == 0;
    record[name] = {{"soft", known ? limit_value(limit.rlim_cur) : json()},
                    {"hard", known ? limit_value(limit.rlim_max) : json()}};
  }
  return record;
}

// Definitions that the build system makes; an empty one is a fact that it did not have.
json given(std::string_view text) {
  return text.empty() ? json() : json(text);
}

json libraries() {
  return {{"libc", ::gnu_get_libc_version()},
          {"fmt", given(ECHOLAB_FMT_VERSION)},
          {"cli11", given(ECHOLAB_CLI11_VERSION)},
          {"nlohmann_json", given(ECHOLAB_JSON_VERSION)},
          {"liburing", given(ECHOLAB_LIBURING_VERSION)},
          {"libuv", given(ECHOLAB_LIBUV_VERSION)}};
}

json build() {
  return {{"version", given(ECHOLAB_VERSION)},
          {"commit", kCommit},
          {"dirty", or_null(kDirty)},
          {"compiler", given(ECHOLAB_COMPILER)},
          {"flags", ECHOLAB_FLAGS},
          {"type", given(ECHOLAB_BUILD_TYPE)},
          {"sanitizers", ECHOLAB_SANITIZERS}};
}

}  // namespace

json environment() {
  return {{"machine", machine()},
          {"kernel", kernel()},
          {"system", system_record()},
          {"limits", limits()},
          {"io_uring", to_json(probe_io_uring())},
          {"libraries", libraries()},
          {"build", build()}};
}

}  // namespace echolab::harness
