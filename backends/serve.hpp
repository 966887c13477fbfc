// What every server program has around its service: arguments, signals, limits, counters. It turns
// a Service into a process with the project's exit codes.
#pragma once

#include "backends/session.hpp"

namespace echolab {

// Parses the arguments (--help lists them) and serves until SIGTERM or SIGINT has drained. Prints
// the bound port as the first line of stdout and the counters at the end. With --stats-json the
// counters are also written to a file (schema "echolab.stats", results/README.md) at the start, on
// each SIGUSR1 and at the end. Returns the exit code: 0 served, 1 failed, 2 usage, 3 backend
// unavailable here.
int serve(int argc, char** argv, const char* name, const char* about, Service& service);

}  // namespace echolab
