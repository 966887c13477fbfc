// The table of a run, for terminals and as Markdown.
#include "harness/table.hpp"

#include "tests/catch.hpp"
#include "tests/helpers.hpp"
#include "tests/sample_run.hpp"

using namespace echolab::harness;

TEST_CASE("the head names the congestion control of both sides", "[table]") {
  RunRecord run = sample_run();
  CHECK(contains(terminal_table(run), "TCP congestion control: unknown on the servers' side"));
  run.environment["kernel"]["sysctls"]["net.ipv4.tcp_congestion_control"] = "bbr";
  for (const std::string& text : {terminal_table(run), markdown_table(run)}) {
    CHECK(contains(text,
                   "TCP congestion control: bbr on the servers' side (the system's default), reno "
                   "on the client's"));
  }
}

TEST_CASE("the head names a hypervisor once, and the command as a shell takes it", "[table]") {
  RunRecord run = sample_run();
  const auto under = [&](const char* signature) {
    run.environment["machine"]["hypervisor"] = signature;
    return terminal_table(run);
  };
  CHECK(contains(under("KVMKVMKVM"), "under KVM;"));
  CHECK(contains(under("VMwareVMware"), "under VMware;"));
  CHECK(contains(under("Microsoft Hv"), "under Microsoft Hv;"));
  run.command = {"harness", "bench", "--server", "mine='/a b/server' {port}", "", "--rates", "25%"};
  CHECK(contains(markdown_table(run),
                 R"(`harness bench --server 'mine='\''/a b/server'\'' {port}' '' --rates 25%`)"));
}
