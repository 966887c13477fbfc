// Durations, rates, counts and sizes, as they are read and as they are shown.
#include "harness/units.hpp"

#include "tests/catch.hpp"
#include "tests/helpers.hpp"

using namespace echolab::harness;
using namespace std::chrono_literals;

TEST_CASE("units", "[load]") {
  REQUIRE(parse_duration("10s", "-d") == 10s);
  REQUIRE(parse_duration("250ms", "-d") == 250ms);
  REQUIRE(parse_duration("1.5s", "-d") == 1500ms);
  REQUIRE(parse_duration("2m", "-d") == 120s);
  REQUIRE(parse_rate("50k", "--rate") == 50'000);
  REQUIRE(parse_rate("1.5M", "--rate") == 1'500'000);
  REQUIRE(parse_count("10k", "-c") == 10'000);
  REQUIRE(parse_size("4KiB", "-s") == 4096);
  REQUIRE(parse_size("64", "-s") == 64);
  REQUIRE(parse_size("4kB", "-s") == 4000);
  REQUIRE(parse_size("1MiB", "-s") == 1'048'576);
  for (const char* bad : {"", "s", "-1s", "1 s", "10x", "0", "0ms", "inf", "nan", "1e3s",
                          "9999999m", "1..2s", "+1s", "0x10", "10"}) {
    CAPTURE(bad);
    REQUIRE_THROWS_AS(parse_duration(bad, "-d"), UsageError);
  }
  REQUIRE(parse_seed("0", "--seed") == 0);
  REQUIRE(parse_seed("18446744073709551615", "--seed") == UINT64_MAX);
  for (const char* bad : {"", "-1", "+1", "1.0", "1k", " 1", "0x1", "18446744073709551616"}) {
    CAPTURE(bad);
    REQUIRE_THROWS_AS(parse_seed(bad, "--seed"), UsageError);
  }
  REQUIRE_THROWS_AS(parse_count("1.5", "-c"), UsageError);
  REQUIRE_THROWS_AS(parse_count("-1", "-c"), UsageError);
  REQUIRE_THROWS_AS(parse_size("4Kib", "-s"), UsageError);
  REQUIRE_THROWS_AS(parse_size("0.3", "-s"), UsageError);
  REQUIRE(format_duration(250ms) == "250 ms");
  REQUIRE(format_duration(1500ms) == "1.5 s");
  REQUIRE(format_duration(125s) == "2m05s");
  REQUIRE(format_duration(999'999ns) == "1 ms");
  REQUIRE(format_count(12'345) == "12.3k");
  REQUIRE(format_count(950) == "950");
  REQUIRE(format_size(64) == "64 B");
  REQUIRE(format_size(4096) == "4 KiB");
  REQUIRE(format_size(1'572'864) == "1.5 MiB");
}

TEST_CASE("a percentage is a share, and a bad one names percentages", "[units]") {
  CHECK(parse_percent("5%", "x") == Approx(0.05));
  CHECK(parse_percent("12.5", "x") == Approx(0.125));
  CHECK(parse_percent("0%", "x") == 0);
  for (const char* bad : {"-5%", "", "%", "5%%", "5k", "many"}) {
    CHECK(contains(error_of([&] { parse_percent(bad, "--fail-on"); }),
                   "expected a percentage such as 5%"));
  }
  CHECK(contains(error_of([] { parse_percent("2000%", "--fail-on"); }), "too large"));
}
