// The results as people read them: aligned text for a terminal of 140 columns (but for sentences),
// and Markdown.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "harness/run_record.hpp"

namespace echolab::harness {

std::string terminal_table(const RunRecord&);
std::string markdown_table(const RunRecord&);

// The run in a few lines: what was measured, where and how.
std::vector<std::string> preamble(const RunRecord&);
std::string command_text(const RunRecord&);  // as a shell takes it back
// What did not run here, and what the kernel did not grant.
std::vector<std::string> absences(const RunRecord&);
// What stands under a cell: why a row is missing, cut short or not fit for a verdict.
std::vector<std::string> notes_of(const CellRecord&, const Plan&);

// "64 connections, 4 KiB, depth 16, closed loop"
std::string cell_title(const CellShape&);
// Three digits that matter: "0.0312", "4.56", "78.9", "12345"; "-" if absent.
std::string figure(const std::optional<double>&);
// '|' ends a cell, '<' begins HTML, '*' and '_' are emphasis; texts come from users and servers.
std::string markdown_text(const std::string&);
std::string markdown_row(const std::vector<std::string>&);  // of texts that are safe
// One field of an environment record as text; "unknown" if it is absent or null.
std::string fact(const nlohmann::json& environment, const char* pointer);

}  // namespace echolab::harness
