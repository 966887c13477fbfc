// How a test says that it cannot run here.
#pragma once

#include <fmt/format.h>

#include <string>

namespace echolab::test {

// The exit status of a test program in which nothing failed and something was skipped, known to
// ctest as SKIP_RETURN_CODE. GNU automake's number for the same; main.cpp gives it no other
// meaning.
inline constexpr int kSkipStatus = 77;

inline bool skipped = false;  // some test was

// Says so aloud; the caller returns. What failed before stays failed.
inline void skip(const std::string& reason) {
  skipped = true;
  fmt::print("SKIPPED: {}\n", reason);
}

}  // namespace echolab::test
