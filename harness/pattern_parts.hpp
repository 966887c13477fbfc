// The three parts of the patterns' benchmark. Each fills in its part of the record as it goes, so
// that what is there when it throws was measured. A server that fails keeps its slices and gets an
// error; the others go on. All throw LoadError (interrupted) when Load::interrupt() was called.
#pragma once

#include <chrono>
#include <exception>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "harness/load.hpp"
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

// Runs `act` for a contender (a `row` and what it holds) that has not failed yet. A failure is its
// own: its row says why, and it lets go of the rest. An interrupt is everybody's.
template <class Contender, class Act>
void attempt(Contender& contender, Act&& act) {
  if (!contender.row->error.empty()) return;
  try {
    act();
  } catch (const std::exception& error) {
    if (Load::interrupted()) throw LoadError(LoadError::Kind::interrupted, "interrupted");
    contender.row->error = error.what();
    contender = Contender{contender.row};
  }
}

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
