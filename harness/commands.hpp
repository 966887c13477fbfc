// The subcommands of the harness program, one file each. add_X declares its options; when X is what
// the user typed, its CLI11 callback stores the work in `chosen`, which main runs once the whole
// command line is known to be right. The work returns the exit code.
//
// Errors that main turns into one line: UsageError (exit 2), any other std::exception (exit 1).
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace echolab::harness {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;         // a run that failed, a regression
inline constexpr int kExitUsage = 2;          // a command line that cannot be meant
inline constexpr int kExitUnavailable = 3;    // a backend that cannot run here
inline constexpr int kExitInterrupted = 130;  // 128 + SIGINT, as shells report it

using Chosen = std::function<int()>;

void add_load(CLI::App& app, Chosen& chosen);
void add_bench(CLI::App& app, Chosen& chosen);
void add_compare(CLI::App& app, Chosen& chosen);
void add_report(CLI::App& app, Chosen& chosen);
void add_list(CLI::App& app, Chosen& chosen);
void add_doctor(CLI::App& app, Chosen& chosen);

}  // namespace echolab::harness
