// Topics over HTTP, through the HTTP session, in virtual time: publish, long poll, presence.

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tests/catch.hpp"
#include "tests/topics_fixture.hpp"

namespace echolab::test {
namespace {

using namespace std::chrono_literals;
using namespace patterns;
using nlohmann::json;
using Fixture = TopicFixture;

// "1 2" of a long poll's answer.
std::string numbers(const json& answer) {
  std::string all;
  for (const auto& message : answer.at("messages")) {
    const std::string id = message.at("id");
    all += id.substr(id.find('-') + 1) + " ";
  }
  if (!all.empty()) all.pop_back();
  return all;
}

TEST_CASE("topics: publish answers with the id and how many listen") {
  Fixture f;
  auto& response = f.client(0).post("/topics/news?key=k", "hello");
  CHECK(response.status == 200);
  CHECK(response.field("Content-Type") == "application/json");
  CHECK(response.body == R"({"id":"abcd1234-1","subscribers":0})");
  f.client(1).get("/topics/news/events");
  f.client(2).get("/topics/*/events");
  CHECK(f.publish("news", "again") == json({{"id", "abcd1234-2"}, {"subscribers", 2}}));
  CHECK(f.hub.topic("news")->first == 1);
}

TEST_CASE("topics: what cannot be published gets the standard's answer") {
  HubLimits limits;
  limits.message = 100;
  limits.topics = 1;
  Fixture f(limits);
  CHECK(f.client(0).post("/topics/t", "\xff\xfe").status == 400);
  CHECK(f.client(0).post("/topics/*", "x").status == 400);
  CHECK(f.client(0).post("/topics/%2A", "x").status == 400);
  CHECK(f.client(0).post("/topics/a%2Fb", "x").status == 400);
  CHECK(f.client(0).post("/topics/%00", "x").status == 400);
  CHECK(f.client(0).post("/topics/" + std::string(257, 'a'), "x").status == 400);
  CHECK(f.client(0).post("/topics/t?key=%ff", "x").status == 400);
  CHECK(f.client(0).post("/topics/t", std::string(101, 'x')).status == 413);
  CHECK(f.hub.totals().published == 0);
  CHECK(f.client(0).post("/topics/a%20b", "x").status == 200);
  CHECK(f.hub.topic("a b"));
  CHECK(f.client(0).post("/topics/other", "x").status == 429);
  CHECK(f.client(1).get("/topics/other").status == 429);
  CHECK(f.client(1).get("/topics/other/events").status == 429);
  CHECK(f.client(0).post("/topics/a%20b", "").status == 200);  // a message may be empty
  f.client(0).send("DELETE", "/topics/t");
  CHECK(f.client(0).read().status == 405);
}

TEST_CASE("topics: a long poll from a cursor is answered at once with what follows it") {
  Fixture f;
  f.publish("t", "one \"quoted\"");
  f.publish("other", "x");
  f.publish("t", "two");
  auto& response = f.client(1).get("/topics/t?cursor=earliest");
  REQUIRE(response.complete());
  CHECK(response.status == 200);
  CHECK(response.field("Cache-Control") == "no-store");
  json answer = json::parse(response.body);
  CHECK(numbers(answer) == "1 3");
  CHECK(answer["messages"][0] ==
        json({{"id", "abcd1234-1"}, {"topic", "t"}, {"data", "one \"quoted\""}}));
  CHECK(answer["gap"].is_null());
  CHECK(answer["cursor"] == "abcd1234-3");
  answer = json::parse(f.client(1).get("/topics/t?cursor=abcd1234-1").body);
  CHECK(numbers(answer) == "3");
  answer = json::parse(f.client(1).get("/topics/*?cursor=abcd1234-1").body);
  CHECK(numbers(answer) == "2 3");
  CHECK(f.hub.totals().subscriptions == 0);
}

TEST_CASE("topics: a long poll without news is parked, and answered with the first") {
  Fixture f;
  f.publish("t", "old");
  CHECK(!f.client(1).get("/topics/t").has_head());
  CHECK(f.hub.totals().subscriptions == 1);
  f.publish("other", "x");
  CHECK(!f.client(1).read().has_head());
  f.publish("t", "new");
  const json answer = json::parse(f.client(1).read().body);
  CHECK(numbers(answer) == "3");
  CHECK(answer["cursor"] == "abcd1234-3");
  CHECK(f.hub.totals().subscriptions == 0);
}

TEST_CASE("topics: a long poll that runs out is a 204 with the cursor to go on from") {
  Fixture f;
  f.publish("other", "x");
  f.client(1).get("/topics/t?max_wait=250ms");
  f.pass(249ms);
  CHECK(!f.client(1).read().has_head());
  f.pass(1ms);
  auto& response = f.client(1).read();
  CHECK(response.status == 204);
  CHECK(response.field("Cursor") == "abcd1234-1");
  CHECK(response.field("Cache-Control") == "no-store");
  CHECK(f.hub.totals().subscriptions == 0);
  // What came in between is not lost.
  f.publish("t", "between");
  CHECK(numbers(json::parse(f.client(1).get("/topics/t?cursor=abcd1234-1").body)) == "2");
}

TEST_CASE("topics: max_wait is a duration, with a default and a cap") {
  TopicLimits limits;
  limits.wait = 3s;
  limits.longest_wait = 5s;
  Fixture f({}, limits);
  const auto waits = [&](const std::string& parameter, Duration expected) {
    f.client(1).get("/topics/t" + parameter);
    f.pass(expected - 1ms);
    CHECK(!f.client(1).read().has_head());
    f.pass(1ms);
    CHECK(f.client(1).read().status == 204);
  };
  waits("", 3s);
  waits("?max_wait=250", 250ms);
  waits("?max_wait=2s", 2s);
  waits("?max_wait=5001ms", 5s);
  waits("?max_wait=18446744073709551615s", 5s);
  CHECK(f.client(1).get("/topics/t?max_wait=0").status == 204);  // at once
  for (const char* bad : {"", "-1", "1m", "s", "1%20s", "0x1", "18446744073709551616"}) {
    INFO(bad);
    CHECK(f.client(1).get(fmt::format("/topics/t?max_wait={}", bad)).status == 400);
  }
}

TEST_CASE("topics: min_bytes waits for enough, or for the time to run out") {
  Fixture f;
  f.client(1).get("/topics/t?min_bytes=30&max_wait=10s");
  f.publish("t", "0123456789");
  f.publish("t", "0123456789");
  CHECK(!f.client(1).read().has_head());
  f.publish("t", "0123456789");
  CHECK(numbers(json::parse(f.client(1).read().body)) == "1 2 3");
  f.client(1).get("/topics/t?min_bytes=1000&max_wait=10s");
  f.publish("t", "0123456789");
  f.pass(10s);
  CHECK(numbers(json::parse(f.client(1).read().body)) == "4");
  CHECK(f.client(1).get("/topics/t?min_bytes=x").status == 400);
  CHECK(f.client(1).get("/topics/t?min_bytes=").status == 400);
  CHECK(f.client(1).get("/topics/t?cursor=nonsense").status == 400);
  CHECK(f.client(1).get("/topics/t?cursor=abcd1234-99").status == 400);  // was never given
}

TEST_CASE("topics: one answer is bounded, the cursor leads to the rest") {
  TopicLimits limits;
  limits.answer_bytes = 100;
  Fixture f({}, limits);
  for (int i = 0; i < 10; ++i) f.publish("t", std::string(29, 'x'));
  std::string cursor = "earliest", all;
  for (int i = 0; i < 4; ++i) {
    const json answer = json::parse(f.client(1).get("/topics/t?cursor=" + cursor).body);
    CHECK(answer["messages"].size() <= 3);
    all += numbers(answer) + " ";
    cursor = answer["cursor"];
  }
  CHECK(all == "1 2 3 4 5 6 7 8 9 10 ");
  f.publish("t", std::string(500, 'x'));  // larger than an answer, and still delivered
  CHECK(numbers(json::parse(f.client(1).get("/topics/t?cursor=" + cursor).body)) == "11");
  // More than an answer can have is not waited for.
  f.client(1).get("/topics/t?min_bytes=1000000");
  for (int i = 0; i < 4; ++i) f.publish("t", std::string(29, 'x'));
  CHECK(f.client(1).read().complete());
}

TEST_CASE("topics: a long poll is told what it has missed") {
  HubLimits limits;
  limits.ring_messages = 2;
  Fixture f(limits);
  for (int i = 0; i < 5; ++i) f.publish("t", "x");
  json answer = json::parse(f.client(1).get("/topics/t?cursor=abcd1234-1").body);
  CHECK(numbers(answer) == "4 5");
  CHECK(answer["gap"] ==
        json({{"first", "abcd1234-2"}, {"last", "abcd1234-3"}, {"reason", "evicted"}}));
  answer = json::parse(f.client(1).get("/topics/t?cursor=00000001-77").body);
  CHECK(answer["gap"]["reason"] == "restarted");
  CHECK(numbers(answer) == "4 5");
  answer = json::parse(f.client(1).get("/topics/empty?cursor=00000001-77").body);
  CHECK(answer["gap"]["reason"] == "restarted");
  CHECK(answer["messages"].empty());
  CHECK(answer["cursor"] == "abcd1234-5");
}

TEST_CASE("topics: what is evicted while a long poll collects is told by the next") {
  HubLimits limits;
  limits.ring_messages = 2;
  Fixture f(limits);
  f.client(1).get("/topics/t?min_bytes=1000");
  f.publish("t", "x");
  for (int i = 0; i < 5; ++i) f.client(0).post("/topics/t", "x");  // nobody carries the doorbell
  f.deliver();
  json answer = json::parse(f.client(1).read().body);
  CHECK(numbers(answer) == "1");
  CHECK(answer["cursor"] == "abcd1234-1");
  answer = json::parse(f.client(1).get("/topics/t?cursor=abcd1234-1").body);
  CHECK(answer["gap"]["first"] == "abcd1234-2");
  CHECK(answer["gap"]["last"] == "abcd1234-4");
  CHECK(numbers(answer) == "5 6");
}

TEST_CASE("topics: a waiter is gone the moment its client is") {
  Fixture f;
  f.client(1).get("/topics/t");
  f.client(2).get("/topics/t/events");
  f.client(3).get("/topics/t");
  f.client(4).get("/topics/t/events");
  CHECK(f.hub.totals().subscriptions == 4);
  f.clients[1].reset();
  f.clients[2].reset();
  CHECK(f.hub.totals().subscriptions == 2);
  f.client(3).driver().eof();
  CHECK(f.client(3).read().status == 204);
  f.client(4).driver().eof();
  CHECK(f.client(4).read().complete());
  CHECK(f.hub.totals().subscriptions == 0);
  CHECK(f.hub.totals().topics == 0);
}

TEST_CASE("topics: waiters and streams are bounded") {
  TopicLimits limits;
  limits.waiters = 1;
  limits.streams = 1;
  Fixture f({}, limits);
  f.publish("t", "x");
  CHECK(!f.client(1).get("/topics/t").has_head());
  CHECK(f.client(2).get("/topics/t").status == 503);
  CHECK(f.client(2).read().field("Retry-After") == "1");
  CHECK(f.client(2).get("/topics/t?cursor=earliest").status == 200);  // does not wait
  CHECK(f.client(3).get("/topics/t/events").status == 200);
  CHECK(f.client(2).get("/topics/t/events").status == 503);
  f.clients[1].reset();
  f.clients[3].reset();
  CHECK(!f.client(2).get("/topics/t").has_head());
  CHECK(f.client(4).get("/topics/t/events").status == 200);
}

TEST_CASE("topics: a stopping server ends its streams and answers its waiters") {
  Fixture f;
  f.client(1).get("/topics/t/events");
  f.client(2).get("/topics/t");
  f.client(1).driver().drain();
  f.client(2).driver().drain();
  CHECK(f.client(1).read().complete());
  CHECK(f.client(2).read().status == 503);
  CHECK(f.client(1).driver().closed());
  CHECK(f.client(2).driver().closed());
}

TEST_CASE("topics: lists and presence") {
  TopicLimits limits;
  limits.listed = 2;
  Fixture f({}, limits);
  CHECK(f.client(0).get("/topics").body == R"({"topics":[],"more":false})");
  f.publish("b", "one");
  f.publish("b", "two");
  f.client(1).get("/topics/a/events");
  json list = json::parse(f.client(0).get("/topics").body);
  CHECK(list["more"] == false);
  CHECK(
      list["topics"] ==
      json::array(
          {{{"topic", "a"}, {"subscribers", 1}, {"first", nullptr}, {"last", nullptr}},
           {{"topic", "b"}, {"subscribers", 0}, {"first", "abcd1234-1"}, {"last", "abcd1234-2"}}}));
  f.publish("c", "x");
  list = json::parse(f.client(0).get("/topics").body);
  CHECK(list["more"] == true);
  CHECK(list["topics"].size() == 2);
  MetricsText metrics;
  f.topics.metrics(metrics);
  CHECK(metrics.text().find("\necholab_topics 3\n") != std::string::npos);
  CHECK(metrics.text().find("\necholab_event_streams 1\n") != std::string::npos);
  CHECK(metrics.text().find("\necholab_published_total 3\n") != std::string::npos);
  CHECK(metrics.text().find("\necholab_dropped_total{policy=\"conflate\"} 0\n") !=
        std::string::npos);
  const json info = json::parse(f.client(0).get("/topics/b/info").body);
  CHECK(info["topic"] == "b");
  CHECK(info["first"] == "abcd1234-1");
  CHECK(info["last"] == "abcd1234-2");
  CHECK(info["retained"] == json({{"id", "abcd1234-2"}, {"topic", "b"}, {"data", "two"}}));
  CHECK(json::parse(f.client(0).get("/topics/a/info").body)["retained"].is_null());
  CHECK(json::parse(f.client(0).get("/topics/*/info").body)["last"] == "abcd1234-3");
  CHECK(f.client(0).get("/topics/nobody/info").status == 404);
}

}  // namespace
}  // namespace echolab::test
