// `harness compare` as a program, and what names a field among the differences.
#pragma once

#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include "harness/compare.hpp"
#include "harness/process.hpp"
#include "tests/catch.hpp"

namespace echolab::harness {

inline Output compare_program(std::vector<std::string> arguments) {
  const char* folder = std::getenv("ECHOLAB_BIN_DIR");
  REQUIRE(folder != nullptr);
  arguments.insert(arguments.begin(), {std::string(folder) + "/harness", "compare"});
  return run_program(arguments, std::chrono::seconds(60));
}

// Null if the field does not differ.
inline const Difference* find(const Comparison& comparison, const std::string& field) {
  for (const Difference& d : comparison.differences) {
    if (d.field == field) return &d;
  }
  return nullptr;
}

}  // namespace echolab::harness
