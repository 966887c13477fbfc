// echo-server: the echo service over any backend.

#include <algorithm>
#include <chrono>

#include "backends/serve.hpp"
#include "echo/echo.hpp"

namespace {

// How many turns take so long on this CPU, by the fastest of a few measurements: whatever disturbs
// one makes it slower.
std::uint64_t turns_for(echolab::Duration time) {
  using Clock = std::chrono::steady_clock;
  constexpr int kMeasurements = 9;
  constexpr std::uint64_t kTurns = 1'000'000;  // about a millisecond
  Clock::duration fastest = Clock::duration::max();
  for (int i = 0; i < kMeasurements; ++i) {
    const auto began = Clock::now();
    echolab::SpinningEcho::spin(kTurns);
    fastest = std::min(fastest, Clock::now() - began);
  }
  const std::chrono::duration<double, std::nano> one = fastest;
  const std::chrono::duration<double, std::nano> all = time;
  return static_cast<std::uint64_t>(all / one * kTurns + 0.5);
}

class EchoServer final : public echolab::Program {
  const char* name() const override { return "echo-server"; }
  const char* about() const override {
    return "Echo (RFC 862) over blocking threads, epoll, io_uring or libuv.";
  }
  const char* default_listen() const override { return "127.0.0.1:7007"; }
  void add_options(CLI::App& app) override {
    echolab::add_time_option(app, "--delay", delay_, "answer each chunk so much later");
    echolab::add_time_option(app, "--spin", spin_,
                             "burn so much CPU for each chunk, such as 0.2us: a known extra cost");
  }
  std::unique_ptr<echolab::Service> start(echolab::Backend&) override {
    return std::make_unique<echolab::EchoService>(
        delay_, spin_ > echolab::Duration::zero() ? turns_for(spin_) : 0);
  }

  echolab::Duration delay_{}, spin_{};
};

}  // namespace

int main(int argc, char** argv) {
  EchoServer program;
  return echolab::serve(argc, argv, program);
}
