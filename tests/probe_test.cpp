// The measurements of the machine itself.
#include "harness/probe.hpp"

#include <stdexcept>

#include "tests/catch.hpp"

namespace echolab::harness {

TEST_CASE("the machine is measured, and the thread is left where it was") {
  const Cpus before = allowed_cpus();
  const MachineProbe probe = probe_machine(before);
  CHECK(allowed_cpus() == before);
  CHECK(probe.syscall_ns > 0);
  CHECK(probe.clock_ns > 0);
  CHECK(probe.same_cpu.samples > 0);
  CHECK(probe.same_cpu.median_us > 0);
  CHECK(probe.same_cpu.p99_us >= probe.same_cpu.median_us);
  CHECK(probe.other_cpu.has_value() == (before.size() > 1));
  CHECK(probe.sleep_late_p99_us >= probe.sleep_late_median_us);
  CHECK(probe.steal_percent >= 0);
  CHECK(to_json(probe)["wake_other_cpu"].is_null() == !probe.other_cpu);

  CHECK_FALSE(probe_machine({before[0]}).other_cpu);
  CHECK_THROWS_AS(probe_machine({}), std::invalid_argument);
}

}  // namespace echolab::harness
