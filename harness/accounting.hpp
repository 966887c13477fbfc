// What a server process has used, read from outside by process id: nothing has to be built into the
// server, so servers that are not ours are accounted in exactly the same way.
//
// The figures come from the process CPU clock (clock_getcpuclockid(3)) and from proc(5). None of
// them needs root for processes of the same user.
#pragma once

#include <sys/types.h>
#include <time.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "harness/files.hpp"

namespace echolab::harness {

// All processes of a server together. Counts only grow while the server lives, except where threads
// or processes that end take their share along (said at each); differences are what is meant.
struct Usage {
  std::uint64_t cpu_ns = 0;     // exact: all threads, ended ones and io_uring's workers included
  std::uint64_t user_ns = 0;    // The split of cpu_ns. The kernel scales tick samples to the exact
  std::uint64_t system_ns = 0;  // sum and reports it in USER_HZ steps (10 ms): only for long spans.
  std::uint64_t worker_ns = 0;  // CPU of io_uring's kernel threads (iou-*), a part of cpu_ns
  std::uint64_t run_delay_ns = 0;          // runnable but waiting for a CPU; living threads only
  std::uint64_t voluntary_switches = 0;    // the thread waited; living threads only
  std::uint64_t involuntary_switches = 0;  // the thread was preempted; living threads only
  std::uint64_t minor_faults = 0;
  std::uint64_t major_faults = 0;
  bool scheduler_known = true;  // false: no schedstat here; run_delay_ns and worker_ns are unknown
  std::uint64_t rss_bytes = 0;  // resident now
  unsigned threads = 0;         // now, iou-* not counted
  unsigned workers = 0;         // iou-* now
  unsigned processes = 0;       // now
};

// What the descriptors of a server point to: which mechanism it really uses.
struct DescriptorKinds {
  unsigned sockets = 0;
  unsigned io_uring = 0;
  unsigned eventpoll = 0;
  unsigned eventfd = 0;
  unsigned other = 0;
  bool complete = true;  // false: a process would not let us read its descriptors
};

// All TCP sockets of the system, both ends of a loopback connection included (proc(5),
// /proc/net/sockstat). Zeros where it cannot be read.
struct TcpMemory {
  std::uint64_t sockets = 0;  // in use, of this network namespace
  std::uint64_t bytes = 0;    // charged for what is queued in them, of all namespaces; whole pages
};
TcpMemory tcp_memory();

// How long the thread that made this could run and had no CPU. That thread only.
class RunDelay {
 public:
  RunDelay();
  // ns since the thread began; 0 where the kernel does not tell. One system call.
  [[nodiscard]] std::uint64_t ns() const;

 private:
  Descriptor file_;
};

// Follows one process and its descendants. Not thread-safe. A process that ends keeps its last
// value in cpu_ns, so that the sum never falls.
class Accounting {
 public:
  explicit Accounting(pid_t root);

  // Cheap: one clock_gettime a known process, so it may bracket every slice. Counts the processes
  // found by the last refresh.
  [[nodiscard]] std::uint64_t cpu_ns();
  // Finds descendants, also those started since: call it when all connections are made, outside of
  // what is timed. A process found late brings the CPU that it has used so far.
  void refresh();
  // Everything. Reads two files a thread (a millisecond per hundred threads or so): not inside a
  // slice. Refreshes.
  [[nodiscard]] Usage usage();
  [[nodiscard]] DescriptorKinds descriptors() const;
  // Whether one of the processes has this socket open; true also if they hide their descriptors.
  [[nodiscard]] bool owns_socket(std::uint64_t inode) const;
  // File names of the mapped shared libraries of the root process, such as "liburing.so.2.3".
  [[nodiscard]] std::vector<std::string> libraries() const;
  [[nodiscard]] std::vector<pid_t> processes() const;

 private:
  pid_t root_;
  struct Known {
    clockid_t clock;
    std::uint64_t last_ns;
  };
  std::map<pid_t, Known> known_;
};

}  // namespace echolab::harness
