// The main of every test program, for Catch2 2 and 3 alike.
#define CATCH_CONFIG_RUNNER
#include <sys/resource.h>

#include "tests/catch.hpp"
#include "tests/skip.hpp"

int main(int argc, char** argv) {
  // A thousand connections need two thousand descriptors, and both ends are in this process.
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  // Catch2 2 returns the number of failures, which may be any; to ctest, one number means a skip.
  if (Catch::Session().run(argc, argv) != 0) return 1;
  return echolab::test::skipped ? echolab::test::kSkipStatus : 0;
}
