// The three parts of the patterns' benchmark. Each fills in its part of the record as it goes, so
// that what is there when it throws was measured. A server that fails keeps its slices and gets an
// error; the others go on. All throw LoadError (interrupted) when Load::interrupt() was called.
#pragma once

#include <chrono>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "harness/pattern_record.hpp"
#include "harness/process.hpp"

namespace echolab::harness {

struct PatternOptions {
  std::vector<std::string> backends;
  unsigned connections = 64;      // of wrk
  unsigned subscribers = 1000;    // of a fan-out
  unsigned idle = 10'000;         // that wait; with threads fewer
  unsigned wrk_rounds = 20;       // of one second for each server
  unsigned fanout_rounds = 200;   // of one message for each server
  std::chrono::seconds watch{3};  // those who wait
  Cpus server_cpus, client_cpus;
};

class PatternBench {
 public:
  using Step = std::function<void(const std::string& what, double done, double total)>;
  PatternBench(const PatternOptions&, PatternRecord&, Step);

  void plaintext(const std::string& load_on);  // "same", "split"
  void fanout(const std::string& transport);   // "sse", "websocket"
  void idle(const std::string& backend, const std::string& kind);

 private:
  const PatternOptions& options_;
  PatternRecord& record_;
  const Step step_;
  std::mt19937_64 random_;
};

}  // namespace echolab::harness
