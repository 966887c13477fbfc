// Session counters by HTTP's rules, and those that live in memory.
#include "patterns/sessions.hpp"

#include <nlohmann/json.hpp>

#include "tests/exchange.hpp"

namespace echolab::test {
namespace {

using namespace patterns;
using nlohmann::json;

struct SessionsFixture {
  explicit SessionsFixture(const SessionLimits& limits = {})
      : store(make_memory_sessions(limits, counting_random())) {
    add_session_routes(router, *store);
  }
  Time now{1h};
  std::unique_ptr<SessionStore> store;
  Router router;
  Exchange client{router, now};
};

TEST_CASE("sessions - memory counts") {
  SessionsFixture f;
  const auto made = f.client.ask("POST", "/session");
  CHECK(made.status == 201);
  const std::string nobody(32, '0');
  const std::string first = "01010101010101010101010101010101";
  CHECK(made.body == R"({"id":")" + first + R"(","count":0})");
  CHECK(made.field("Location") == "/session/" + first);
  CHECK(made.field("Cache-Control") == "no-store");
  for (int n = 1; n <= 3; ++n) {
    const auto counted = f.client.ask("POST", "/session/" + first + "/increment");
    CHECK(counted.status == 200);
    CHECK(json::parse(counted.body) == json{{"id", first}, {"count", n}});
  }
  CHECK(json::parse(f.client.ask("GET", "/session/" + first).body).at("count") == 3);
  const auto other = f.client.ask("POST", "/session");
  CHECK(json::parse(other.body).at("count") == 0);
  CHECK(f.client.ask("GET", "/session/" + nobody).status == 404);
  CHECK(f.client.ask("POST", "/session/" + nobody + "/increment").status == 404);
}

TEST_CASE("sessions - memory forgets who was away too long") {
  SessionLimits limits;
  limits.ttl = 10s;
  SessionsFixture f(limits);
  const std::string a = f.client.ask("POST", "/session").field("Location");
  f.now += 5s;
  const std::string b = f.client.ask("POST", "/session").field("Location");
  f.now += 4s;
  CHECK(f.client.ask("POST", a + "/increment").status == 200);  // a lives on, until 19 s
  f.now += 6s;
  CHECK(f.client.ask("GET", b).status == 404);
  CHECK(f.client.ask("GET", a).status == 200);
  f.now += 4s;
  CHECK(f.client.ask("GET", a).status == 404);
}

TEST_CASE("sessions - memory is bounded") {
  SessionLimits limits;
  limits.sessions = 2;
  limits.ttl = 10s;
  SessionsFixture f(limits);
  CHECK(f.client.ask("POST", "/session").status == 201);
  CHECK(f.client.ask("POST", "/session").status == 201);
  const auto full = f.client.ask("POST", "/session");
  CHECK(full.status == 503);
  CHECK(full.field("Retry-After") == "1");
  f.now += 10s;
  CHECK(f.client.ask("POST", "/session").status == 201);
  MetricsText text;
  f.store->add_metrics(text);
  CHECK(text.text().find("\necholab_sessions 1\n") != std::string::npos);
}

}  // namespace
}  // namespace echolab::test
