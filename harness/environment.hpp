// The record that makes a table readable later: what was measured on. Every field is read when
// asked for; a fact that cannot be had here is null, never invented.
//
// machine    architecture, cpu_model, microcode, cpus_online, topology {sockets, cores,
//            threads_per_core}, numa_nodes, governor, turbo (bool), hypervisor ("none",
//            "KVMKVMKVM"), clocksource, steal_percent_since_boot, memory_bytes, load_average_1min
// kernel     release, version, command_line (without what names disks, programs, addresses), hz,
//            preemption, vulnerabilities {NAME: line}, sysctls {"net.core.somaxconn": "4096"}
// system     distribution, container
// limits     cgroup_version, cpu_quota_cpus, memory_max_bytes, affinity ("0-3"), memory_nodes,
//            seccomp ("off", "strict", "filter"), no_new_privs (bool), capabilities_effective, root
//            (bool), and as {soft, hard}: nofile, memlock_bytes, processes
// io_uring   as in uring_probe.hpp
// libraries  libc (of this run); as built with: fmt, cli11, nlohmann_json, liburing, libuv
// build      version, commit ("unknown" outside git), dirty (bool), compiler, flags, type,
// sanitizers
//
// A limit that is none is "unlimited".
#pragma once

#include <nlohmann/json.hpp>
#include <span>

namespace echolab::harness {

nlohmann::json environment();

// What a difference in a field means for a comparison of two runs.
enum class Weight {
  doubtful,  // numbers of the two runs do not describe the same thing: ratios mislead
  note,      // worth a line; seldom changes the numbers much
};
struct Comparable {
  const char* pointer;  // JSON pointer into the record, "/kernel/release"; may name an object
  Weight weight;
  const char* meaning;  // one line in plain words, for the user
};
std::span<const Comparable> comparable_fields();

}  // namespace echolab::harness
