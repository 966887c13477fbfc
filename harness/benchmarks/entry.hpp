// A benchmark of this program: what main.cpp lists, filters and registers.
#pragma once

#include <benchmark/benchmark.h>

#include <functional>
#include <string>
#include <vector>

namespace echolab::benchmarks {

struct Entry {
  std::string name;
  std::function<void(benchmark::State&)> run;
  bool server = false;  // measures servers (servers.hpp), not a function of this process
};

// What one call of our own parts costs. Each adds its benchmarks.
void add_sessions(std::vector<Entry>&);   // the seam without I/O, outbox, mailbox, timers
void add_histogram(std::vector<Entry>&);  // of the harness
void add_protocols(std::vector<Entry>&);  // HTTP and WebSocket

}  // namespace echolab::benchmarks
