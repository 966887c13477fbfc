#include "harness/probe.hpp"

#include <fmt/core.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <stdexcept>
#include <thread>
#include <vector>

#include "harness/child.hpp"
#include "harness/cpu_ticks.hpp"

namespace echolab::harness {
namespace {

using Clock = std::chrono::steady_clock;
using Micros = std::chrono::duration<double, std::micro>;

// Every loop has a count (enough for its percentile) and an end (the slowest machine is not kept
// waiting). The sum of the ends is 0.4 s.
constexpr unsigned kCallBatches = 50;
constexpr unsigned kCallsPerBatch = 1000;
constexpr unsigned kWakeSamples = 1500;  // 15 beyond p99
constexpr unsigned kWakeWarmUp = 20;     // round trips, discarded: the thread's first faults
constexpr Millis kWakeTime{120};
constexpr unsigned kSleepSamples = 300;
constexpr Millis kSleepTime{100};
constexpr std::chrono::microseconds kSleep{100};

// Placement: a wake-up on another CPU that costs more than this, or this many times more than one
// on the same CPU, would be most of what is measured.
constexpr double kDearWakeUs = 20;
constexpr double kDearWakeRatio = 4;

double quantile(std::vector<double>& values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const auto at = static_cast<std::size_t>(q * static_cast<double>(values.size()));
  return values[std::min(at, values.size() - 1)];
}

// ns for one call: the median of batches, which interrupts and steal hit one at a time.
template <typename Call>
double cost_ns(Call call) {
  std::vector<double> batches;
  for (unsigned i = 0; i < kCallBatches; ++i) {
    const auto start = Clock::now();
    for (unsigned j = 0; j < kCallsPerBatch; ++j) call();
    const std::chrono::duration<double, std::nano> took = Clock::now() - start;
    batches.push_back(took.count() / kCallsPerBatch);
  }
  return quantile(batches, 0.5);
}

class Event {
 public:
  Event() : fd_(::eventfd(0, EFD_CLOEXEC)) {
    if (!fd_) throw_errno("eventfd");
  }
  void signal() const {
    const std::uint64_t one = 1;
    if (::write(fd_.get(), &one, sizeof one) != sizeof one) throw_errno("eventfd write");
  }
  void wait() const {
    std::uint64_t count = 0;
    while (::read(fd_.get(), &count, sizeof count) != sizeof count) {
      if (errno != EINTR) throw_errno("eventfd read");
    }
  }

 private:
  Descriptor fd_;
};

// Puts the calling thread back where it may run when the scope ends.
class AffinityScope {
 public:
  AffinityScope() : before_(allowed_cpus()) {}
  AffinityScope(const AffinityScope&) = delete;
  AffinityScope& operator=(const AffinityScope&) = delete;
  ~AffinityScope() {
    try {
      pin_this_thread(before_);
    } catch (const std::exception&) {  // a CPU was taken away meanwhile: it runs on what is left
    }
  }

 private:
  Cpus before_;
};

// Ping-pong between this thread, on `here`, and one on `there`. Both sleep in read(2) in between,
// so half a round trip is a write, a wake-up and a switch.
WakeUp wake_up(int here, int there) {
  const AffinityScope scope;
  const Event ping;
  const Event pong;
  pin_this_thread({here});
  std::atomic<bool> stop = false;
  std::exception_ptr broken;  // read after the join
  std::thread partner([&] {
    try {
      pin_this_thread({there});
    } catch (...) {
      broken = std::current_exception();
    }
    for (;;) {
      ping.wait();
      if (stop) return;
      pong.signal();
    }
  });
  std::vector<double> samples;
  const auto deadline = Clock::now() + kWakeTime;
  for (unsigned i = 0; i < kWakeWarmUp + kWakeSamples && Clock::now() < deadline; ++i) {
    const auto start = Clock::now();
    ping.signal();
    pong.wait();
    const Micros round = Clock::now() - start;
    if (i >= kWakeWarmUp) samples.push_back(round.count() / 2);
  }
  stop = true;
  ping.signal();
  partner.join();
  if (broken) std::rethrow_exception(broken);
  WakeUp result;
  result.samples = static_cast<unsigned>(samples.size());
  result.median_us = quantile(samples, 0.5);
  result.p99_us = quantile(samples, 0.99);
  return result;
}

// Hyperthreads of one core take turns at its units. False where the topology is not shown.
bool same_core(int a, int b) {
  const auto siblings = [](int cpu) {
    return read_text(
        fmt::format("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", cpu));
  };
  const auto of_a = siblings(a);
  return of_a && of_a == siblings(b);
}

// The CPU for a client beside a server on the first `taken` ones: the first that shares no core
// with them, or else simply the next.
int client_cpu(const Cpus& allowed, std::size_t taken, bool& shares_core) {
  for (std::size_t i = taken; i < allowed.size(); ++i) {
    shares_core = std::any_of(allowed.begin(), allowed.begin() + static_cast<std::ptrdiff_t>(taken),
                              [&](int server) { return same_core(server, allowed[i]); });
    if (!shares_core) return allowed[i];
  }
  return allowed[taken];
}

nlohmann::json to_json(const WakeUp& wake) {
  return {{"median_us", wake.median_us}, {"p99_us", wake.p99_us}, {"samples", wake.samples}};
}

}  // namespace

MachineProbe probe_machine(const Cpus& cpus) {
  if (cpus.empty()) throw std::invalid_argument("no CPU to measure on");
  MachineProbe probe;
  const AffinityScope scope;
  CpuTicks ticks(cpus);
  const std::uint64_t steal_before = ticks.read().steal;
  const auto begun = Clock::now();
  pin_this_thread({cpus[0]});
  probe.syscall_ns = cost_ns([] { ::syscall(SYS_getppid); });
  probe.clock_ns = cost_ns([] {
    timespec now;
    ::clock_gettime(CLOCK_MONOTONIC, &now);
  });
  probe.same_cpu = wake_up(cpus[0], cpus[0]);
  bool shares_core = false;
  if (cpus.size() > 1) probe.other_cpu = wake_up(cpus[0], client_cpu(cpus, 1, shares_core));
  std::vector<double> late;
  const auto deadline = Clock::now() + kSleepTime;
  for (unsigned i = 0; i < kSleepSamples && Clock::now() < deadline; ++i) {
    const auto start = Clock::now();
    std::this_thread::sleep_for(kSleep);
    late.push_back(Micros(Clock::now() - start - kSleep).count());
  }
  probe.sleep_late_median_us = quantile(late, 0.5);
  probe.sleep_late_p99_us = quantile(late, 0.99);
  const double stolen_ns =
      static_cast<double>((ticks.read().steal - steal_before) * ticks.tick_ns());
  const std::chrono::duration<double, std::nano> took = Clock::now() - begun;
  probe.steal_percent = 100.0 * stolen_ns / (took.count() * static_cast<double>(cpus.size()));
  return probe;
}

nlohmann::json to_json(const MachineProbe& probe) {
  return {{"syscall_ns", probe.syscall_ns},
          {"clock_ns", probe.clock_ns},
          {"wake_same_cpu", to_json(probe.same_cpu)},
          {"wake_other_cpu", probe.other_cpu ? to_json(*probe.other_cpu) : nlohmann::json()},
          {"sleep_late_median_us", probe.sleep_late_median_us},
          {"sleep_late_p99_us", probe.sleep_late_p99_us},
          {"steal_percent", probe.steal_percent}};
}

PlaceWish parse_place(const std::string& text) {
  if (text == "same") return PlaceWish::same;
  return text == "split" ? PlaceWish::split : PlaceWish::automatic;
}

Placement place(PlaceWish wish, const MachineProbe& probe, const Cpus& allowed,
                unsigned server_cpus) {
  const std::size_t wanted = std::max(server_cpus, 1U);
  if (allowed.size() < wanted) {
    throw std::invalid_argument(fmt::format("{} CPUs for the server, but only {} may be used ({})",
                                            wanted, allowed.size(), cpu_list(allowed)));
  }
  const auto middle = allowed.begin() + static_cast<std::ptrdiff_t>(wanted);
  const Cpus server(allowed.begin(), middle);
  const auto together = [&](std::string reason) {
    return Placement{true, server, server, std::move(reason)};
  };
  const auto apart = [&](std::string reason) {
    bool shares_core = false;
    const int client = client_cpu(allowed, wanted, shares_core);
    if (shares_core) reason += "; the client's CPU shares a core with the server's";
    return Placement{false, server, {client}, std::move(reason)};
  };
  const bool room = middle != allowed.end();
  switch (wish) {
    case PlaceWish::same:
      return together("as asked");
    case PlaceWish::split:
      if (!room) {
        throw std::invalid_argument(fmt::format(
            "no CPU is left for the client: the server has {} of {}", wanted, allowed.size()));
      }
      return apart("as asked");
    case PlaceWish::automatic:
      break;
  }
  if (!room) return together("no CPU is left for the client alone");
  if (!probe.other_cpu) return together("the wake-up of another CPU was not measured");
  const double same_us = probe.same_cpu.median_us;
  const double other_us = probe.other_cpu->median_us;
  const std::string costs = fmt::format(
      "a wake-up costs {:.1f} us on the same CPU, {:.1f} us on another", same_us, other_us);
  if (other_us > kDearWakeUs || other_us > kDearWakeRatio * same_us) {
    return together(costs + ": across CPUs, mostly that would be measured");
  }
  return apart(costs);
}

}  // namespace echolab::harness
