// When the requests of an open loop are due.
#include "harness/arrivals.hpp"

#include <cmath>
#include <cstdint>
#include <optional>
#include <vector>

#include "tests/catch.hpp"

using namespace echolab::harness;

TEST_CASE("arrivals: rates, order and fair shares", "[load]") {
  Shape shape;
  shape.connections = 10;
  shape.size = 64;
  shape.rate = 1000;
  shape.arrivals = Arrivals::constant;
  SECTION("constant: each connection has its own period") {
    Schedule schedule(shape, 5);
    schedule.start(0);
    std::vector<std::optional<std::uint64_t>> last(10);
    std::uint64_t before = 0;
    for (int i = 0; i < 1000; ++i, schedule.step()) {
      const std::uint64_t due = schedule.due();
      REQUIRE(due >= before);
      before = due;
      auto& previous = last[schedule.connection()];
      if (previous) {
        REQUIRE(due - *previous >= 9'999'999);  // 10 ms, up to rounding
        REQUIRE(due - *previous <= 10'000'001);
      }
      previous = due;
    }
    REQUIRE(before >= 990'000'000);
    REQUIRE(before < 1'000'000'000);
  }
  SECTION("poisson: exponential gaps, connections alike") {
    shape.arrivals = Arrivals::poisson;
    Schedule schedule(shape, 6);
    schedule.start(0);
    constexpr int n = 100'000;
    std::vector<int> per_connection(10);
    double squares = 0;
    std::uint64_t before = 0;
    for (int i = 0; i < n; ++i, schedule.step()) {
      const auto gap = static_cast<double>(schedule.due() - before);
      before = schedule.due();
      squares += gap * gap;
      ++per_connection[schedule.connection()];
    }
    const double mean = static_cast<double>(before) / n;
    REQUIRE(std::abs(mean / 1e6 - 1) < 0.02);
    REQUIRE(std::abs(squares / n / (mean * mean) - 2) < 0.1);  // as an exponential has it
    for (const int count : per_connection) REQUIRE(std::abs(count - n / 10) < 600);
  }
  SECTION("time stands still between slices") {
    Schedule one(shape, 7);
    Schedule cut(shape, 7);
    one.start(0);
    std::uint64_t slice = 0;
    cut.start(0);
    for (int i = 0; i < 500; ++i) {
      while (cut.due() >= slice * 1'000'000'000 + 10'000'000) {
        cut.stop(slice * 1'000'000'000 + 10'000'000);
        ++slice;
        cut.start(slice * 1'000'000'000);
      }
      const std::uint64_t in_slices = cut.due() - slice * 990'000'000;
      REQUIRE(in_slices + 1000 > one.due());
      REQUIRE(in_slices < one.due() + 1000);
      REQUIRE(cut.connection() == one.connection());
      one.step();
      cut.step();
    }
  }
}
