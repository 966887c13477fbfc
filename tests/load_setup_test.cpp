// The load generator before its first slice: connecting and verifying, with servers good and bad.
#include "harness/load.hpp"
#include "tests/catch.hpp"
#include "tests/helpers.hpp"
#include "tests/load_helpers.hpp"

using namespace echolab::harness;
using Kind = LoadError::Kind;

TEST_CASE("verification finds a wrong byte in odd sizes", "[load][bad]") {
  const TestServer server(after(kHello + 3000, [](Stream&, std::string& in) {
    in[0] = static_cast<char>(in[0] ^ 0x80);
    return Then::go_on;
  }));
  const auto load = connected(server, closed(2, 64, 1));
  try {
    load->verify(2);
    FAIL("verify did not notice");
  } catch (const LoadError& error) {
    CAPTURE(error.what());
    REQUIRE(error.kind == Kind::mismatch);
    REQUIRE(contains(error.what(), "verification: wrong byte at offset"));
  }
}

TEST_CASE("a server that cannot be reached is named", "[load][bad]") {
  std::string address;
  {
    const TestServer gone;
    address = gone.address();
  }
  Load load(parse_endpoint(address), closed(4, 64, 1), 1);
  try {
    load.connect(kAmple);
    FAIL("connected to nothing");
  } catch (const LoadError& error) {
    REQUIRE(error.kind == Kind::connect);
    REQUIRE(contains(error.what(), address));
    REQUIRE(contains(error.what(), "refused"));
  }
}

TEST_CASE("a connection that ends in the setup is told as it was", "[load][bad]") {
  const Then how = GENERATE(Then::close, Then::reset);
  const auto line_of = [&](std::uint64_t good, unsigned connections) {
    const TestServer server(after(good, [how](Stream& stream, std::string& in) {
      if (stream.number > 0) return Then::go_on;
      in.clear();
      return how;
    }));
    Load load(parse_endpoint(server.address()), closed(connections, 64, 1), 1);
    load.set_patience(kAmple);
    try {
      load.connect(kAmple);
      load.verify(connections);
    } catch (const LoadError& error) {
      CHECK(error.kind == Kind::closed);
      return std::string(error.what());
    }
    return std::string("nothing was noticed");
  };
  const std::string before = line_of(0, 1);
  CAPTURE(before);
  CHECK(contains(before, "connection 1: "));
  CHECK(contains(before, "its first byte was sent and not echoed"));
  const std::string amid = line_of(kHello + 70, 1);
  CAPTURE(amid);
  CHECK(contains(amid, "in the verification, "));
  CHECK(contains(amid, " bytes echoed"));
}
