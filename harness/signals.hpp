// Signals that ask a measurement to end in order, with its results written.
#pragma once

#include <csignal>
#include <utility>
#include <vector>

namespace echolab::harness {

enum class Again {
  is_ignored,  // timeout(1) signals twice, and what was measured must still be written
  kills,       // for who cannot wait
};

// While this lives, SIGINT (Ctrl-C), SIGTERM and SIGHUP (the terminal is gone) call
// Load::interrupt(). SIGHUP stays ignored where it was, as nohup(1) wants it.
class OrderlySignals {
 public:
  explicit OrderlySignals(Again);
  OrderlySignals(const OrderlySignals&) = delete;
  OrderlySignals& operator=(const OrderlySignals&) = delete;
  ~OrderlySignals();

 private:
  using Action = struct sigaction;
  std::vector<std::pair<int, Action>> before_;
};

}  // namespace echolab::harness
