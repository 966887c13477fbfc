// Files that are part of the program.
#include "harness/embedded.hpp"

#include "harness/files.hpp"
#include "tests/catch.hpp"

using namespace echolab::harness;

TEST_CASE("what is embedded is the file, byte for byte", "[embedded]") {
  for (const char* name : {"threads", "epoll", "io_uring", "libuv"}) {
    const std::string path = std::string("backends/") + name + ".cpp";
    const auto file = read_text(path);
    REQUIRE(file);
    CHECK(embedded(path) == *file);
  }
  CHECK_THROWS_AS(embedded("backends/no_such.cpp"), std::out_of_range);
}
