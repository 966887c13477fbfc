// The gateway: what a client is told about its upstream.
#include "patterns/gateway.hpp"

#include <nlohmann/json.hpp>

#include "tests/exchange.hpp"

namespace echolab::test {
namespace {

using namespace patterns;
using nlohmann::json;

struct GatewayFixture {
  explicit GatewayFixture(std::optional<Upstream> upstream = Upstream{"127.0.0.1", 7})
      : gateway(std::move(upstream), counting_random(), {}) {
    gateway.add_routes(router);
  }
  Time now{1h};
  Gateway gateway;
  Router router;
  Exchange client{router, now};
};

Reply failed(std::errc error) {
  return {1, std::make_error_code(error), {}};
}

TEST_CASE("gateway - asks with 64 bytes of its own and tells how long it took") {
  GatewayFixture f;
  CHECK(f.client.ask("GET", "/gateway").status == 0);
  REQUIRE(f.client.calls().size() == 1);
  const Out::Call& call = f.client.calls()[0];
  CHECK(call.upstream->host == "127.0.0.1");
  CHECK(call.upstream->port == 7);
  CHECK(call.request.size() == 64);
  CHECK(call.reply_size == 64);
  CHECK(call.timeout == 5s);
  f.now += 5012us;
  const auto answer = f.client.reply({call.id, {}, call.request});
  CHECK(answer.status == 200);
  CHECK(json::parse(answer.body) == json{{"upstream_us", 5012}});
  CHECK(answer.field("Cache-Control") == "no-store");

  CHECK(f.client.ask("GET", "/gateway").status == 0);
  CHECK(f.client.calls()[1].request != f.client.calls()[0].request);
}

TEST_CASE("gateway - an upstream that fails") {
  GatewayFixture f;
  const auto told = [&](const Reply& reply) {
    CHECK(f.client.ask("GET", "/gateway").status == 0);
    return f.client.reply(reply);
  };
  CHECK(told(failed(std::errc::connection_refused)).status == 502);
  CHECK(told(failed(std::errc::connection_reset)).status == 502);
  CHECK(told(failed(std::errc::network_unreachable)).status == 502);
  CHECK(told(failed(std::errc::timed_out)).status == 504);
  CHECK(told({1, {}, pattern(1, 64)}).status == 502);  // not what it was sent
}

TEST_CASE("gateway - the client chooses the timeout, within a limit") {
  GatewayFixture f;
  const auto timeout = [&](const std::string& word) -> Duration {
    const auto answer = f.client.ask("GET", "/gateway?timeout=" + word);
    if (answer.status == 400) return {};
    REQUIRE(answer.status == 0);
    const Duration asked = f.client.calls().back().timeout;
    f.client.leave();
    return asked;
  };
  CHECK(timeout("250us") == 250us);
  CHECK(timeout("20ms") == 20ms);
  CHECK(timeout("60s") == 60s);
  for (const char* bad : {"", "5", "ms", "61s", "60001ms", "-1s", "1.5s", "4294967296us", "1h"}) {
    CAPTURE(bad);
    CHECK(timeout(bad) == Duration{});
  }
}

TEST_CASE("gateway - without an upstream there is no gateway") {
  GatewayFixture f(std::nullopt);
  CHECK(f.client.ask("GET", "/gateway").status == 503);
  CHECK(f.client.calls().empty());
}

}  // namespace
}  // namespace echolab::test
