// The table of a run, for terminals and as Markdown.
#include "harness/table.hpp"

#include <algorithm>
#include <sstream>

#include "harness/run_folder.hpp"
#include "harness/verdict_table.hpp"
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

TEST_CASE("verdicts stand beside the figures that tell why", "[table]") {
  const RunRecord run = read_run("tests/data/run-explained.json");
  RunRecord measured = sample_run();  // its rows are shown, as the stored ones have no slices
  for (std::size_t i = 0; i < run.cells.size(); ++i) {
    measured.cells[i] = run.cells[i];
    for (Result& result : measured.cells[i].results) result.slices.resize(1);
  }
  measured.environment = run.environment;
  const std::string text = terminal_verdicts(measured, measured.cells[0]);
  std::istringstream lines(text);
  std::string line, threads, uring;
  while (std::getline(lines, line)) {
    INFO(line);
    const bool sentence = line.starts_with("  ");
    CHECK((sentence || line.size() <= 140));
    if (line.starts_with("threads ")) threads = line;
    if (line.starts_with("io_uring ")) uring = line;
  }
  CHECK(contains(text, "against epoll "));
  CHECK(contains(threads, "1.707 [1.682, 1.760] slower"));
  CHECK(contains(threads, "2.00  1.00  1.00  49.2"));
  CHECK(contains(uring, "0.973 [0.959, 0.980] none (3 %)"));
  CHECK(contains(text, "\n  threads: 1.71 times the CPU"));

  const std::string markdown = markdown_verdicts(measured, measured.cells[0]);
  CHECK(contains(markdown, " | wait | why |\n"));
  CHECK(contains(markdown, "| 49.2 | 1.71 times the CPU (+3.16 us): 1.00 context switches"));
  const auto columns = [](const std::string& row) {
    return std::count(row.begin(), row.end(), '|');
  };
  std::istringstream rows(markdown);
  std::getline(rows, line);  // a blank one
  while (std::getline(rows, line)) CHECK(columns(line) == 13);
}

TEST_CASE("why a figure other than CPU has no verdict is said once", "[table]") {
  RunRecord run = sample_run();
  few_samples(run.cells[0]);
  summarise(run.cells[0], run.plan, run.placement, run.steal);
  const std::string text = terminal_verdicts(run, run.cells[0]);
  CHECK_FALSE(contains(text, "second copy"));
  CHECK_FALSE(contains(terminal_verdicts(run, run.cells[1]), "requests/s"));  // all have the same
  CHECK(contains(
      text, "  no verdict on p99: too few samples for p99: 1000 of 2000 in a block (other)\n"));
}

TEST_CASE("a run without verdicts has the ratios and the counters", "[table]") {
  RunRecord run = sample_run();
  run.plan.quick = true;
  for (CellRecord& cell : run.cells) summarise(cell, run.plan, run.placement, run.steal);
  const std::string text = terminal_verdicts(run, run.cells[0]);
  CHECK_FALSE(contains(text, "verdict"));
  CHECK(contains(text, "\nother         2.00          1.00 "));
  CHECK(verdict_legend(run).size() == 2);
  run.cells[0].results.clear();
  CHECK(terminal_verdicts(run, run.cells[0]).empty());
  CHECK(markdown_verdicts(run, run.cells[0]).empty());
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
