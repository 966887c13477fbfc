#include "harness/signals.hpp"

#include "harness/load.hpp"

namespace echolab::harness {

extern "C" {
static void on_signal(int) {
  Load::interrupt();
}
}

OrderlySignals::OrderlySignals(Again again) {
  Action action{};
  action.sa_handler = on_signal;
  if (again == Again::kills) action.sa_flags = static_cast<int>(SA_RESETHAND);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    Action old{};
    ::sigaction(signal, nullptr, &old);
    if (signal == SIGHUP && old.sa_handler == SIG_IGN) continue;
    ::sigaction(signal, &action, nullptr);
    before_.emplace_back(signal, old);
  }
}

OrderlySignals::~OrderlySignals() {
  for (const auto& [signal, action] : before_) ::sigaction(signal, &action, nullptr);
}

}  // namespace echolab::harness
