// Sessions in signed tokens: what is accepted, and what a client cannot make up.
#include "patterns/token.hpp"

#include <nlohmann/json.hpp>

#include "tests/exchange.hpp"

namespace echolab::test {
namespace {

using namespace patterns;
using nlohmann::json;

TokenKey key_of(std::uint8_t b) {
  TokenKey key;
  key.fill(static_cast<std::byte>(b));
  return key;
}

const WallClock kTokenClock{std::chrono::system_clock::time_point(1'000'000s), Time(1h)};

struct TokenFixture {
  explicit TokenFixture(const TokenKey& key = key_of(7), const SessionLimits& limits = {})
      : store(make_token_sessions(limits, counting_random(), key, kTokenClock)) {
    add_session_routes(router, *store);
  }
  std::string start() { return json::parse(client.ask("POST", "/session").body).at("id"); }
  Time now = kTokenClock.steady;
  std::unique_ptr<SessionStore> store;
  Router router;
  Exchange client{router, now};
};

TEST_CASE("token - what is sealed is unsealed") {
  Token token;
  for (std::size_t i = 0; i < token.session.size(); ++i) token.session[i] = std::byte(i * 17);
  token.count = 0x0123456789abcdef;
  token.expires = 0xfedcba9876543210;
  const std::string text = seal(token, key_of(1));
  CHECK(text.size() == 87);
  CHECK(
      text.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") ==
      std::string::npos);
  const auto again = unseal(text, key_of(1));
  REQUIRE(again);
  CHECK(*again == token);
  CHECK_FALSE(unseal(text, key_of(2)));
}

TEST_CASE("token - its bytes are those of the standards") {
  // python3: base64.urlsafe_b64encode(p + hmac.digest(bytes(32), p, "sha256")), with
  // p = bytes([1]) + bytes(16) + (5).to_bytes(8, "big") + (9).to_bytes(8, "big")
  Token token;
  token.count = 5;
  token.expires = 9;
  CHECK(seal(token, TokenKey{}) ==
        "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABQAAAAAAAAAJMy0z67BJtkmPuxCB45AP5mQMEEoFIcWaCnXD2h9m_uQ");
}

TEST_CASE("token - every change of every character is noticed") {
  Token token;
  token.count = 3;
  const std::string good = seal(token, key_of(1));
  const std::string_view alphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/= .";
  std::size_t accepted = 0;
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (const char c : alphabet) {
      std::string bad = good;
      bad[i] = c;
      if (bad != good && unseal(bad, key_of(1))) ++accepted;
    }
  }
  CHECK(accepted == 0);
  for (std::size_t n = 0; n < good.size(); ++n) CHECK_FALSE(unseal(good.substr(0, n), key_of(1)));
  CHECK_FALSE(unseal(good + "A", key_of(1)));
  CHECK_FALSE(unseal(good + "=", key_of(1)));
  CHECK_FALSE(unseal("", key_of(1)));
  CHECK_FALSE(unseal(std::string(good.size(), 'A'), key_of(1)));
  CHECK_FALSE(unseal(std::string(good.size(), '\0'), key_of(1)));
}

TEST_CASE("token - each increment gives the next token") {
  TokenFixture f;
  const auto made = f.client.ask("POST", "/session");
  CHECK(made.status == 201);
  std::string id = json::parse(made.body).at("id");
  CHECK(made.field("Location") == "/session/" + id);
  for (int n = 1; n <= 3; ++n) {
    const auto counted = f.client.ask("POST", "/session/" + id + "/increment");
    CHECK(counted.status == 200);
    CHECK(json::parse(counted.body).at("count") == n);
    const std::string next = json::parse(counted.body).at("id");
    CHECK(next != id);
    id = next;
  }
  const auto read = f.client.ask("GET", "/session/" + id);
  CHECK(json::parse(read.body) == json{{"id", id}, {"count", 3}});
}

TEST_CASE("token - another server with the key goes on, one without does not") {
  TokenFixture first;
  const std::string id = first.start();
  TokenFixture second;
  CHECK(second.client.ask("POST", "/session/" + id + "/increment").status == 200);
  TokenFixture stranger(key_of(8));
  CHECK(stranger.client.ask("POST", "/session/" + id + "/increment").status == 401);
}

TEST_CASE("token - an old token counts from there again, as documented") {
  TokenFixture f;
  const std::string id = f.start();
  const auto once = f.client.ask("POST", "/session/" + id + "/increment");
  const auto twice = f.client.ask("POST", "/session/" + id + "/increment");
  CHECK(once.body == twice.body);
}

TEST_CASE("token - what is not a token, or no longer, is 401") {
  SessionLimits limits;
  limits.ttl = 10s;
  TokenFixture f(key_of(7), limits);
  const std::string id = f.start();
  for (const std::string& bad : std::vector<std::string>{"x", id + "x", std::string(87, '~')}) {
    CAPTURE(bad);
    const auto refused = f.client.ask("GET", "/session/" + bad);
    CHECK(refused.status == 401);
    CHECK(refused.field("WWW-Authenticate") == R"(Bearer realm="session", error="invalid_token")");
    CHECK(f.client.ask("POST", "/session/" + bad + "/increment").status == 401);
  }
  f.now += 9s;
  const auto counted = f.client.ask("POST", "/session/" + id + "/increment");
  CHECK(counted.status == 200);
  f.now += 1s;
  CHECK(f.client.ask("GET", "/session/" + id).status == 401);
  const std::string next = json::parse(counted.body).at("id");
  CHECK(f.client.ask("GET", "/session/" + next).status == 200);
}

}  // namespace
}  // namespace echolab::test
