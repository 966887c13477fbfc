// Which facts of the environment record decide whether two runs can be compared.
#include <array>

#include "harness/environment.hpp"

namespace echolab::harness {

std::span<const Comparable> comparable_fields() {
  using enum Weight;
  static constexpr std::array kFields = {
      Comparable{"/machine/architecture", doubtful, "another kind of processor"},
      Comparable{"/machine/cpu_model", doubtful, "another processor: absolute numbers differ"},
      Comparable{"/machine/cpus_online", doubtful, "another number of CPUs to run on"},
      Comparable{"/machine/topology", note, "CPUs share cores and caches in another way"},
      Comparable{"/machine/numa_nodes", note, "memory is near and far in another way"},
      Comparable{"/machine/microcode", note, "microcode changes the price of system calls"},
      Comparable{"/machine/governor", doubtful, "the clock frequency is governed in another way"},
      Comparable{"/machine/turbo", doubtful, "the clock frequency has another ceiling"},
      Comparable{"/machine/hypervisor", doubtful,
                 "wake-ups cost far more in some virtual machines"},
      Comparable{"/machine/clocksource", doubtful, "reading the clock costs something else"},
      Comparable{"/machine/memory_bytes", note, "another amount of memory"},
      Comparable{"/kernel/release", doubtful, "another kernel: the measured code is mostly its"},
      Comparable{"/kernel/version", note, "another build of the kernel"},
      Comparable{"/kernel/command_line", note, "other kernel parameters"},
      Comparable{"/kernel/hz", doubtful, "another timer tick"},
      Comparable{"/kernel/preemption", doubtful, "the kernel preempts in another way"},
      Comparable{"/kernel/vulnerabilities", doubtful,
                 "other mitigations: system calls cost something else"},
      // Before the other sysctls: the first field that names a value says what it weighs.
      Comparable{"/kernel/sysctls/net.ipv4.tcp_congestion_control", doubtful,
                 "the servers' sends cost something else: some algorithms pace them"},
      Comparable{"/kernel/sysctls", note, "other kernel settings"},
      Comparable{"/system/container", note, "a container's filters make system calls dearer"},
      Comparable{"/system/distribution", note, "another distribution: other defaults"},
      Comparable{"/limits/cpu_quota_cpus", doubtful,
                 "a CPU quota stops all threads when it is used up"},
      Comparable{"/limits/affinity", doubtful, "other CPUs were allowed"},
      Comparable{"/limits/memory_nodes", note, "memory of other nodes was allowed"},
      Comparable{"/limits/memory_max_bytes", note, "another limit of memory"},
      Comparable{"/limits/nofile", note, "another limit of descriptors, and so of connections"},
      Comparable{"/limits/memlock_bytes", note, "another limit of what io_uring may register"},
      Comparable{"/limits/seccomp", doubtful, "a seccomp filter makes every system call dearer"},
      Comparable{"/io_uring/available", doubtful, "io_uring ran in one of the two only"},
      Comparable{"/io_uring/features", note, "io_uring has other features"},
      Comparable{"/io_uring/setup_flags", doubtful, "io_uring was granted other set-up flags"},
      Comparable{"/io_uring/registrations", doubtful, "io_uring has other kinds of buffers"},
      Comparable{"/libraries/libc", note, "another C library"},
      Comparable{"/libraries/liburing", note, "another liburing"},
      Comparable{"/libraries/libuv", doubtful, "another libuv: its backend is that library"},
      Comparable{"/build/compiler", note, "another compiler"},
      Comparable{"/build/flags", doubtful, "other compiler flags"},
      Comparable{"/build/type", doubtful,
                 "another build type: only Release is meant to be measured"},
      Comparable{"/build/sanitizers", doubtful, "sanitizers slow everything down"},
      Comparable{"/build/commit", note, "another state of the sources"},
      Comparable{"/build/dirty", note,
                 "built from sources with changes that are not in the commit"}};
  return kFields;
}

}  // namespace echolab::harness
