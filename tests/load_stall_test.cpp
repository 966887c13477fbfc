// The load generator against a server that stalls: an open loop must show it.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

#include "harness/load.hpp"
#include "tests/bad_servers.hpp"
#include "tests/catch.hpp"
#include "tests/load_helpers.hpp"

using namespace echolab::harness;
using namespace std::chrono_literals;

namespace {

// Sleeps for `stall` whenever the server has received another `every` bytes. `longest`: what the
// longest of them really took.
Behaviour stalling(std::uint64_t every, Nanos stall,
                   std::shared_ptr<std::atomic<Nanos>> longest = nullptr) {
  return [=, total = std::uint64_t{0}](Stream&, std::string& in) mutable {
    const std::uint64_t before = total / every;
    total += in.size();
    if (total / every == before) return Then::go_on;
    const auto began = Clock::now();
    std::this_thread::sleep_for(stall);
    if (longest) *longest = std::max(longest->load(), Nanos(Clock::now() - began));
    return Then::go_on;
  };
}

// How long the machine keeps threads from running while this lives: what a thread that sleeps again
// and again overslept at most.
class Hiccups {
 public:
  Hiccups()
      : thread_([this] {
          while (!over_) {
            const auto began = Clock::now();
            std::this_thread::sleep_for(kNapLength);
            longest_ = std::max(longest_, Nanos(Clock::now() - began) - kNapLength);
          }
        }) {}
  Hiccups(const Hiccups&) = delete;
  Hiccups& operator=(const Hiccups&) = delete;
  ~Hiccups() { longest(); }
  // Ends the watch.
  Nanos longest() {
    over_ = true;
    if (thread_.joinable()) thread_.join();
    return longest_;
  }

 private:
  static constexpr Nanos kNapLength = 1ms;
  std::atomic<bool> over_{false};
  Nanos longest_{0};
  std::thread thread_;
};

}  // namespace

TEST_CASE("open loop: in flight is capped, the rest is skipped", "[load]") {
  Shape shape = open(4, 64, 4000, Arrivals::constant);
  shape.depth = 2;
  // The whole server sleeps for 200 ms once, when 800 requests are due and 8 may be in flight.
  const TestServer server(stalling(4 * kHello + 100 * shape.size, 200ms));
  const auto load = connected(server, shape);
  Histogram latency;
  const Slice s = load->run(500ms, latency, nullptr);
  REQUIRE(s.requests + s.skipped == s.due);
  REQUIRE(s.skipped >= 700);
  REQUIRE(s.inflight_mean <= 8);
}

TEST_CASE("a stall shows in the open loop and hides in the closed one", "[load]") {
  // A stall of S = 100 ms after every 400 requests. At 1000/s that is one each P = 400 ms, and a
  // request that is due at a random time waits longer than x with probability (S - x) / P: the
  // percentile p is S - P (1 - p), from 1 - S/P on. A closed loop of one request sees the stall
  // once in 400 requests.
  constexpr std::size_t size = 64;
  constexpr std::uint64_t every = 400 * size;
  const auto textbook_ms = [](double p) { return 100 - 500 * (1 - p); };
  const auto ms_at = [](const Histogram& h, double p) {
    return static_cast<double>(h.quantile(p)) / 1e6;
  };

  // Nobody waits longer than the stall and what the machine adds, both of which are measured. A
  // machine may add something that the watch misses, hence more than one attempt.
  bool bounded = false;
  for (int attempt = 0; attempt < 5 && !bounded; ++attempt) {
    const auto stall = std::make_shared<std::atomic<Nanos>>(0ns);
    const TestServer server(stalling(every, 100ms, stall));
    const auto load = connected(server, open(8, size, 1000, Arrivals::constant));
    Hiccups hiccups;
    Histogram latency;
    const Slice s = load->run(1500ms, latency, nullptr);
    const double added_ms =
        static_cast<double>((stall->load() + hiccups.longest()).count()) / 1e6 - 100;
    REQUIRE(s.skipped == 0);
    // A slow machine can only make it longer. 10 ms: connections are not in step, so that a stall
    // meets ten requests more or less.
    bounded = true;
    for (const double p : {0.87, 0.9, 0.95, 0.99}) {
      CAPTURE(attempt, p, ms_at(latency, p), textbook_ms(p), added_ms, s.requests);
      REQUIRE(ms_at(latency, p) > textbook_ms(p) - 10);
      const double most_ms = std::min(textbook_ms(p) + 10, 100.0) + added_ms;
      bounded = bounded && ms_at(latency, p) <= most_ms;
      if (attempt == 4) CHECK(ms_at(latency, p) <= most_ms);
    }
  }

  const TestServer server(stalling(every, 100ms));
  const auto load = connected(server, closed(1, size, 1));
  Histogram latency;
  Histogram raw;
  std::uint64_t requests = 0;
  while (requests < 2000) requests += load->run(100ms, latency, &raw).requests;
  REQUIRE(latency.max() >= 100'000'000);  // it did stall
  REQUIRE(ms_at(raw, 0.99) < 50);         // and p99 does not show it
}

TEST_CASE("from the actual send time a stall hides behind a full socket", "[load]") {
  // Requests of 1 MiB, one in 5 ms: a stall of 200 ms makes 40 due, of which the socket takes a
  // few. The rest are sent when it is over, and wait for next to nothing by that clock.
  constexpr std::size_t size = 1 << 20;
  const TestServer server(stalling(kHello + 20 * size, 200ms));
  const auto load = connected(server, open(1, size, 200, Arrivals::constant));
  Histogram due, sent;
  const Slice s = load->run(300ms, due, &sent);
  REQUIRE(s.requests == s.due);
  REQUIRE(due.count() == sent.count());
  CAPTURE(due.mean(), sent.mean(), due.max(), sent.max());
  REQUIRE(due.max() >= 200'000'000);
  // The one that met the stall shows it on both clocks; those behind it only on the first.
  REQUIRE(due.mean() > 1.5 * sent.mean());
}
