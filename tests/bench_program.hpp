// `harness bench` as a program.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include "harness/process.hpp"
#include "tests/catch.hpp"
#include "tests/skip.hpp"

namespace echolab::harness {

inline std::string program(const std::string& name) {
  const char* folder = std::getenv("ECHOLAB_BIN_DIR");
  REQUIRE(folder != nullptr);
  return std::string(folder) + "/" + name;
}

// Servers of tests are written in it. False: the test is to be skipped.
inline bool python() {
  if (run_program({"/usr/bin/env", "python3", "-c", ""}, std::chrono::seconds(20)).exit_status == 0)
    return true;
  echolab::test::skip("python3 is not installed");
  return false;
}

// A server in the matrix by its command line: our own, as if it were somebody else's.
inline std::string foreign(const std::string& name, const std::string& prefix = "") {
  return fmt::format("{}={} '{}' --backend epoll --listen 127.0.0.1:{{port}}", name, prefix,
                     program("echo-server"));
}

inline Output bench(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {program("harness"), "bench"});
  return run_program(arguments, std::chrono::seconds(100));
}

// It ends at once, with exit 2 and one line that has `part`.
inline void bench_refuses(const std::vector<std::string>& arguments, const std::string& part) {
  const Output output = bench(arguments);
  INFO(output.err);
  CHECK(output.exit_status == 2);
  CHECK(output.err.find(part) != std::string::npos);
  CHECK(output.err.find('\n') == output.err.size() - 1);
  CHECK(output.out.empty());
}

// A matrix of one small cell, so that a test takes a second. Options of `more` replace its own.
inline std::vector<std::string> small(const std::string& folder,
                                      std::vector<std::string> more = {}) {
  std::vector<std::string> out{"--connections", "2", "--sizes", "64",   "--depths", "1",
                               "--slices",      "5", "--slice", "2ms",  "--seed",   "1",
                               "--blocks",      "1", "--place", "same", "-o",       folder};
  for (const std::string& word : more) {
    const auto own = std::find(out.begin(), out.end(), word);
    if (word.starts_with("--") && own != out.end()) out.erase(own, own + 2);
  }
  out.insert(out.end(), more.begin(), more.end());
  return out;
}

}  // namespace echolab::harness
