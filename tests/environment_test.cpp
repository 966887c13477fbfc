// The environment record, the probes of the machine, and what the doctor makes of them. What a
// machine answers is its own business; that the answers hang together is checked.
#include "harness/environment.hpp"

#include <algorithm>
#include <set>
#include <string>

#include "harness/diagnosis.hpp"
#include "harness/probe.hpp"
#include "harness/uring_probe.hpp"
#include "tests/catch.hpp"

using namespace echolab::harness;
using nlohmann::json;

namespace {

MachineProbe quiet_machine() {
  MachineProbe probe;
  probe.syscall_ns = 100;
  probe.clock_ns = 25;
  probe.same_cpu = {2, 4, 1000};
  probe.other_cpu = WakeUp{5, 9, 1000};
  probe.sleep_late_median_us = 55;
  probe.sleep_late_p99_us = 70;
  return probe;
}

// A record in which nothing is worth a word.
json quiet_record() {
  return {{"machine",
           {{"clocksource", "tsc"},
            {"governor", "performance"},
            {"turbo", false},
            {"hypervisor", "none"},
            {"steal_percent_since_boot", 0.0},
            {"load_average_1min", 0.1},
            {"cpus_online", 4}}},
          {"kernel",
           {{"release", "6.12.0"},
            {"vulnerabilities", {{"meltdown", "Not affected"}}},
            {"sysctls", {{"net.core.somaxconn", "4096"}}}}},
          {"limits",
           {{"cpu_quota_cpus", "unlimited"},
            {"seccomp", "off"},
            {"nofile", {{"soft", 1024}, {"hard", 1048576}}},
            {"memlock_bytes", {{"soft", "unlimited"}, {"hard", "unlimited"}}}}},
          {"io_uring",
           {{"available", true},
            {"features", {"fast_poll"}},
            {"opcodes", {"nop"}},
            {"unknown_opcodes", 0},
            {"setup_flags", {"single_issuer", "defer_taskrun"}},
            {"registrations", {"buffer_ring", "buffer_ring_incremental"}}}},
          {"build", {{"type", "Release"}, {"sanitizers", ""}, {"compiler", "GNU 12"}}}};
}

Finding about(const std::string& subject, const json& record, const MachineProbe& probe) {
  for (const Finding& finding : diagnose(record, probe, {0, 1, 2, 3})) {
    if (finding.subject == subject) return finding;
  }
  FAIL("no finding about " << subject);
  return {};
}
Finding::Level level(const std::string& subject, const json& record,
                     const MachineProbe& probe = quiet_machine()) {
  return about(subject, record, probe).level;
}

}  // namespace

TEST_CASE("the environment record has every documented part, and no empty strings for facts") {
  const json record = environment();
  for (const char* part :
       {"machine", "kernel", "system", "limits", "io_uring", "libraries", "build"}) {
    REQUIRE(record.contains(part));
    CHECK(record[part].is_object());
  }
  for (const auto& [name, value] : record["machine"].items()) {
    INFO(name);
    CHECK(value != json(""));
  }
  CHECK(record["kernel"]["release"].is_string());
  CHECK(record["limits"]["affinity"] == cpu_list(allowed_cpus()));
  CHECK(record["limits"]["nofile"]["hard"] >= record["limits"]["nofile"]["soft"]);
  CHECK(record["libraries"]["libc"].is_string());
  CHECK(record["build"]["commit"].is_string());
  if (record["build"]["commit"] == "unknown") CHECK(record["build"]["dirty"].is_null());
  CHECK(json::parse(record.dump()) == record);
}

TEST_CASE("the kernel command line is recorded without what is private") {
  const json line = environment()["kernel"]["command_line"];
  if (!line.is_string()) return;
  const std::string text = " " + line.get<std::string>() + " ";
  for (const char* word : {" root=", " init=", " rdinit=", " ip=", " -- "}) {
    CHECK(text.find(word) == std::string::npos);
  }
}

TEST_CASE("every field that compare looks at is in the record") {
  const json record = environment();
  std::set<std::string> seen;
  for (const Comparable& field : comparable_fields()) {
    INFO(field.pointer);
    CHECK(record.contains(json::json_pointer(field.pointer)));
    CHECK(std::string(field.meaning).size() > 10);
    CHECK(seen.insert(field.pointer).second);
  }
}

TEST_CASE("the io_uring probe hangs together") {
  const UringProbe probe = probe_io_uring();
  const json record = to_json(probe);
  CHECK(record["available"] == probe.available);
  if (!probe.available) {
    CHECK_FALSE(probe.why_not.empty());
    CHECK(record["why_not"] == probe.why_not);
    CHECK(probe.opcodes.empty());
    return;
  }
  CHECK(record["why_not"].is_null());
  CHECK(std::count(probe.opcodes.begin(), probe.opcodes.end(), "nop") == 1);
  CHECK(std::count(probe.features.begin(), probe.features.end(), "single_mmap") == 1);
}

TEST_CASE("placement follows the cost of a wake-up, or the wish") {
  MachineProbe probe = quiet_machine();
  const Cpus four = {0, 1, 2, 3};
  const Placement split = place(PlaceWish::automatic, probe, four, 2);
  CHECK_FALSE(split.same);
  CHECK(split.server == Cpus{0, 1});
  CHECK(split.client.size() == 1);
  CHECK(split.client[0] >= 2);
  CHECK(split.reason.find("2.0 us on the same CPU, 5.0 us on another") != std::string::npos);

  CHECK(place(PlaceWish::same, probe, four, 1).client == Cpus{0});
  CHECK(place(PlaceWish::automatic, probe, {3}, 1).same);
  CHECK(place(PlaceWish::automatic, probe, {2, 3}, 2).same);

  probe.other_cpu->median_us = 8.1;  // more than four times
  CHECK(place(PlaceWish::automatic, probe, four, 1).same);
  probe.same_cpu.median_us = 10;
  CHECK_FALSE(place(PlaceWish::automatic, probe, four, 1).same);
  probe.other_cpu->median_us = 20.1;
  CHECK(place(PlaceWish::automatic, probe, four, 1).same);
  CHECK_FALSE(place(PlaceWish::split, probe, four, 1).same);
  probe.other_cpu.reset();
  CHECK(place(PlaceWish::automatic, probe, four, 1).same);

  CHECK_THROWS_AS(place(PlaceWish::split, probe, {0}, 1), std::invalid_argument);
  CHECK_THROWS_AS(place(PlaceWish::same, probe, {0}, 2), std::invalid_argument);
}

TEST_CASE("the doctor finds nothing on a quiet machine") {
  for (const Finding& finding : diagnose(quiet_record(), quiet_machine(), {0, 1, 2, 3})) {
    INFO(finding.subject << ": " << finding.value << ": " << finding.meaning);
    CHECK(finding.level == Finding::Level::ok);
    CHECK_FALSE(finding.value.empty());
    CHECK_FALSE(finding.meaning.empty());
  }
}

TEST_CASE("the doctor finds each thing that is wrong") {
  using enum Finding::Level;
  json record = quiet_record();
  MachineProbe probe = quiet_machine();

  record["io_uring"] = {{"available", false}, {"why_not", "switched off"}};
  CHECK(level("io_uring", record) == warn);
  CHECK(about("io_uring", record, probe).meaning.find("switched off") != std::string::npos);
  record = quiet_record();
  record["io_uring"]["setup_flags"] = json::array();
  CHECK(level("io_uring", record) == note);
  record["kernel"]["vulnerabilities"]["meltdown"] = "Mitigation: PTI";
  CHECK(level("mitigations", record) == note);
  record["limits"]["cpu_quota_cpus"] = 1.5;
  CHECK(level("CPUs", record) == warn);
  record["limits"]["seccomp"] = "filter";
  CHECK(level("seccomp", record) == note);
  record["limits"]["nofile"]["hard"] = 4096;
  CHECK(level("open files", record) == warn);
  record["limits"]["memlock_bytes"]["soft"] = 65536;
  CHECK(level("locked memory", record) == note);
  record["machine"]["hypervisor"] = "KVMKVMKVM";
  CHECK(level("hypervisor", record) == note);
  record["machine"]["governor"] = "powersave";
  CHECK(level("clock frequency", record) == note);
  record["machine"]["load_average_1min"] = 3.0;
  CHECK(level("other load", record) == warn);
  record["kernel"]["sysctls"]["net.core.somaxconn"] = "128";
  CHECK(level("accept queue", record) == note);
  record["build"]["type"] = "Debug";
  CHECK(level("build", record) == warn);
  record = quiet_record();
  record["build"]["sanitizers"] = "thread";
  CHECK(level("build", record) == warn);

  probe.syscall_ns = 3000;
  CHECK(level("system call", record, probe) == warn);
  probe.clock_ns = 900;
  CHECK(level("clock source", record, probe) == warn);
  probe.steal_percent = 30;
  CHECK(level("steal", record, probe) == warn);
  probe.other_cpu->median_us = 600;
  CHECK(level("wake-up", record, probe) == note);
  probe.sleep_late_median_us = 1500;
  CHECK(level("timers", record, probe) == note);
}

TEST_CASE("the doctor copes with facts that are unknown") {
  for (const Finding& finding : diagnose({{"io_uring", json::object()}}, quiet_machine(), {0})) {
    CHECK_FALSE(finding.value.empty());
  }
}
