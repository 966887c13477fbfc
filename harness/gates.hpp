// Which slices count, and whether a row is fit for a verdict. Pure functions of the record.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "harness/run_record.hpp"

namespace echolab::harness {

inline constexpr double kLittleLimit = 0.05;    // share; inflight against rate x latency
inline constexpr double kAchievedLimit = 0.99;  // share of the offered requests
inline constexpr double kClientLimit = 0.95;    // share of the client's CPU that is in use
inline constexpr double kDroppedLimit = 0.20;   // share of the slices; beyond: no verdict
inline constexpr double kStealFactor = 2;       // times the session's median share
inline constexpr double kStealFloor = 0.02;     // share; less cannot move a ratio noticeably
// Closed loop on one CPU: the share of it that server and client must have had between them.
// Nothing idles there, so the rest is somebody else's. On a quiet machine most slices have 0.97 to
// 1, those of 1000 connections down to 0.8 (the kernel's own threads work for them); beside a
// compiler 0.65 to 0.85, beside one busy loop 0.3 to 0.5.
inline constexpr double kCpuShareLimit = 0.80;
// Client on a CPU of its own: the share of a slice for which it could run and had to wait. Alone it
// never waits; this much already moves its latencies by more than the intervals between rows.
inline constexpr double kRunDelayLimit = 0.05;
// Of a whole row, whatever its loop and placement: the share of the CPUs that somebody else used.
// At most 0.08 in quiet runs, for the kernel's own threads.
inline constexpr double kOthersLimit = 0.10;

// What rows are judged against, beside their own figures.
struct Circumstances {
  bool shared_cpu = true;  // client and server have the same CPUs
  std::size_t cpus = 1;    // that they have together
  std::uint64_t tick_ns = 10'000'000;
  // A sweep on shared CPUs asks how much server and client can do together: what the client is late
  // counts, from the intended send time, so that its limit makes a rate missed and not unknown.
  bool pair = false;
};
Circumstances circumstances(const Plan&, const PlacementRecord&, const StealRecord&);

// Per-slice gates that need no other slice: all but steal. `idle`: of idle_share().
Gate judge_slice(const SliceRow&, const CellShape&, const Circumstances&, double idle);

// The share of the CPUs' time in these slices that nobody used: a server that sleeps is no busy
// machine. Ticks are as long as slices, so one slice says nothing and all so far a good deal.
double idle_share(const std::vector<SliceRow>&, const Circumstances&);
// |in flight / (rate x mean latency) - 1|. Absent without requests.
std::optional<double> little_error(const SliceRow&);
// The share of its time that the client had no CPU to spare. Absent without time.
std::optional<double> client_busy(const SliceRow&, bool shared_cpu);
// The share of the CPUs' time that server and client used. Absent without time.
std::optional<double> cpu_share(const SliceRow&, const Circumstances&);
// The share of the CPUs' time in the kept slices that is neither theirs nor idle nor stolen. Absent
// without slices, or if idle time is not known.
std::optional<double> others_share(const Result&, const Circumstances&);

// Whether the hypervisor certainly took more from a round than twice the session's median. The
// kernel shows steal in ticks of 10 ms, as long as a slice, so that a slice is too short to judge
// and a round is judged as a whole; the count may be up to one tick too high, which is forgiven.
bool stolen(std::uint64_t ticks, std::uint64_t tick_ns, std::uint64_t elapsed_ns, std::size_t cpus,
            double median_share);

// Fills in gates and no_verdict; the summary's shares must be there.
void judge_result(Result&, const CellShape&, const Plan&, const Circumstances&, const StealRecord&);

}  // namespace echolab::harness
