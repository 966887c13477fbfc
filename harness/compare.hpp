// Two runs side by side: what differs in the numbers, and what differs in the circumstances, which
// may be the real reason.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "harness/run_record.hpp"

namespace echolab::harness {

// A circumstance that is not the same in both. `doubtful`: ratios between the runs may mislead.
struct Difference {
  std::string field;  // "/kernel/release", "plan: slice"
  std::string a, b;
  bool doubtful = false;
  std::string meaning;
};

struct Pair {
  std::optional<double> a, b;
  [[nodiscard]] std::optional<double> ratio() const;  // b / a
};

struct ComparedRow {
  std::string variant;
  Pair requests_per_s, server_cpu_us_per_request, p99_us;
  Verdicts verdicts;               // B against A
  std::string explanation;         // what accounts for them; empty without any
  std::string unfit;               // why it is not judged; empty if it is
  std::vector<std::string> worse;  // what got worse beyond the limit, one line each
};

struct ComparedCell {
  CellShape shape;
  std::vector<ComparedRow> rows;
};

struct Comparison {
  std::vector<Difference> differences;  // the machine's first, then doubtful ones, then notes
  bool partial = false;                 // A or B was interrupted
  bool other_machine = false;           // A and B do not come from the same kind of machine
  std::vector<std::string> remarks;     // partial and empty runs, and those without blocks
  std::string unfit;                    // why no row is judged, whatever it is; empty if some are
  std::vector<ComparedCell> cells;
  std::vector<std::string> only_a, only_b;  // "epoll/c64/s64/d1", "c1000/s64/d1"
  std::vector<std::string> failed_in_b;     // rows that A has and B failed to measure

  // A row got worse beyond the limit, or failed in B only.
  [[nodiscard]] bool regressed() const;
  [[nodiscard]] std::size_t rows() const;     // that both have
  [[nodiscard]] std::size_t judged() const;   // of these, that could have shown it
  [[nodiscard]] std::size_t decided() const;  // of these, with a verdict on CPU or throughput
  [[nodiscard]] std::size_t decided_p99() const;
  // Figures of the rows judged that are not worse for sure, but may be by more than their delta:
  // "epoll/c64/s64/d1 p99".
  [[nodiscard]] std::vector<std::string> may_be_worse() const;
  // Why "no regression" would be said of less than A has: a run was interrupted, B lacks rows, no
  // row could be judged. Each is a line; none if all is there.
  [[nodiscard]] std::vector<std::string> gaps() const;
};

// Judges every row that is fit in both runs, by its blocks: by how much those of B lie above those
// of A. `limit`: the share (0.05) beyond which worse is a regression; none: nothing is one. What is
// noise in either run never is.
Comparison compare(const RunRecord& a, const RunRecord& b, std::optional<double> limit);

std::string to_text(const Comparison&, const std::string& name_a, const std::string& name_b,
                    std::optional<double> limit);
std::string to_markdown(const Comparison&, const std::string& name_a, const std::string& name_b,
                        std::optional<double> limit);
// Schema "echolab.compare", version 2.
nlohmann::ordered_json to_json(const Comparison&, const std::string& name_a,
                               const std::string& name_b, std::optional<double> limit);

}  // namespace echolab::harness
