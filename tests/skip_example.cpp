// Tests that skip and fail in every combination, run by skip_test.sh only.
#include <stdexcept>

#include "tests/catch.hpp"
#include "tests/skip.hpp"

using echolab::test::skip;

TEST_CASE("passes") {
  CHECK(true);
}

TEST_CASE("skips") {
  skip("an example");
}

TEST_CASE("fails") {
  CHECK(false);
}

TEST_CASE("fails and skips") {
  CHECK(false);
  skip("an example");
}

TEST_CASE("fails and only prints the words") {
  fmt::print("SKIPPED: an example\n");
  CHECK(false);
}

// Catch2 2 makes the number of failures its exit status.
TEST_CASE("fails as often as the status of a skip") {
  for (int i = 0; i < echolab::test::kSkipStatus; ++i) CHECK(false);
}

TEST_CASE("throws") {
  throw std::runtime_error("SKIPPED: an example");
}
