// Topics as server-sent events, through the HTTP session, in virtual time.

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

TEST_CASE("topics: an event stream begins with retry and an id, then carries events") {
  Fixture f;
  f.publish("t", "old");
  auto& response = f.client(1).get("/topics/t/events");
  CHECK(response.status == 200);
  CHECK(response.field("Content-Type") == "text/event-stream");
  CHECK(response.field("Cache-Control") == "no-store");
  CHECK(response.body == "retry: 2000\nid: abcd1234-1\n\n");
  CHECK(f.client(1).events().empty());
  CHECK(f.client(1).stream.retry == "2000");
  CHECK(f.client(1).stream.last_event_id == "abcd1234-1");
  f.publish("t", "two\nlines");
  f.publish("t", "cr\rcrlf\r\nlf\n");
  f.publish("t", "");
  f.publish("t", " space");
  const auto events = f.client(1).events();
  REQUIRE(events.size() == 4);
  CHECK(events[0].id == "abcd1234-2");
  CHECK(events[0].type == "message");
  CHECK(events[0].data == "two\nlines");
  CHECK(events[1].data == "cr\ncrlf\nlf\n");
  CHECK(events[2].data.empty());
  CHECK(events[3].data == " space");
  CHECK(f.client(1).stream.lf_only);
}

TEST_CASE("topics: an event stream of everything carries the JSON object") {
  Fixture f;
  f.client(1).get("/topics/*/events");
  f.publish("a", "x");
  const auto events = f.client(1).events();
  REQUIRE(events.size() == 1);
  CHECK(json::parse(events[0].data) == json({{"id", "abcd1234-1"}, {"topic", "a"}, {"data", "x"}}));
}

TEST_CASE("topics: an event stream goes on where the last one ended") {
  Fixture f;
  for (int i = 1; i <= 5; ++i) f.publish("t", std::to_string(i));
  f.client(1).send("GET", "/topics/t/events?last_event_id=abcd1234-1", "",
                   "Last-Event-ID: abcd1234-3\r\n");
  CHECK(f.client(1).told() == "4:4 5:5");  // the header wins
  f.client(2).get("/topics/t/events?last_event_id=abcd1234-2&cursor=earliest");
  CHECK(f.client(2).told() == "3:3 4:4 5:5");
  f.client(3).get("/topics/t/events?cursor=abcd1234-4");
  CHECK(f.client(3).told() == "5:5");
  f.client(4).get("/topics/t/events?retained=true");
  CHECK(f.client(4).told() == "5:5");
  f.client(5).get("/topics/t/events?retained=false");
  CHECK(f.client(5).told().empty());
  // Before its first event a client knows where it began.
  f.publish("t", "6");
  const std::string id = "abcd1234-5";
  CHECK(f.client(6).get("/topics/t/events?last_event_id=" + id).status == 200);
  CHECK(f.client(6).told() == "6:6");
}

TEST_CASE("topics: a gap is an event with an id behind it") {
  HubLimits limits;
  limits.ring_messages = 2;
  Fixture f(limits);
  for (int i = 1; i <= 5; ++i) f.publish("t", std::to_string(i));
  f.client(1).get("/topics/t/events?cursor=abcd1234-1");
  const auto events = f.client(1).events();
  REQUIRE(events.size() == 3);
  CHECK(events[0].type == "gap");
  CHECK(events[0].id == "abcd1234-3");
  CHECK(json::parse(events[0].data) ==
        json({{"first", "abcd1234-2"}, {"last", "abcd1234-3"}, {"reason", "evicted"}}));
  CHECK(events[1].data == "4");
  f.client(2).get("/topics/t/events?cursor=deadbeef-1");
  CHECK(f.client(2).told() == "3:gap 4:4 5:5");
  // Until its gap has been told, the old cursor is all that the client has.
  CHECK(f.client(3).get("/topics/t/events?cursor=deadbeef-1").body.find("id: abcd1234-3\nevent") !=
        std::string::npos);
}

TEST_CASE("topics: an event stream refuses what it does not understand") {
  Fixture f;
  CHECK(f.client(1).get("/topics/t/events?cursor=x").status == 400);
  CHECK(f.client(1).get("/topics/t/events?last_event_id=x").status == 400);
  f.client(1).send("GET", "/topics/t/events", "", "Last-Event-ID: x\r\n");
  CHECK(f.client(1).read().status == 400);
  CHECK(f.client(1).get("/topics/t/events?policy=unbounded").status == 400);
  for (const char* other : {"1", "0", "2", "TRUE", ""}) {
    INFO(other);
    CHECK(f.client(1).get(std::string("/topics/t/events?retained=") + other).status == 400);
  }
  CHECK(f.client(1).get("/topics/a%2Fb/events").status == 400);
  CHECK(f.hub.totals().subscriptions == 0);
  f.client(1).send("HEAD", "/topics/t/events");
  CHECK(f.client(1).read().status == 200);
  CHECK(f.client(1).read().field("Content-Type") == "text/event-stream");
  CHECK(f.client(1).read().complete());
  CHECK(f.hub.totals().subscriptions == 0);
  CHECK(f.client(1).get("/topics/t/info").status == 404);  // the connection goes on
}

TEST_CASE("topics: a silent event stream gives a sign of life, a busy one sets no timers") {
  Fixture f;
  f.client(1).get("/topics/t/events");
  f.client(1).read();
  const auto pass = [&](Duration duration) { f.client(1).driver().pass(duration); };
  pass(14s);
  f.client(1).events();
  CHECK(f.client(1).stream.comments == 0);
  pass(1s);
  f.client(1).events();
  CHECK(f.client(1).stream.comments == 1);
  pass(60s);
  f.client(1).events();
  CHECK(f.client(1).stream.comments == 5);
  // 10 s behind the last comment an event: the next comment is due 15 s behind that.
  pass(10s);
  f.publish("t", "x");
  const std::size_t deadlines = f.client(1).driver().deadlines();
  pass(14s);
  CHECK(f.client(1).told() == "1:x");
  CHECK(f.client(1).stream.comments == 5);
  CHECK(f.client(1).driver().deadlines() <= deadlines + 1);
  pass(1s);
  f.client(1).events();
  CHECK(f.client(1).stream.comments == 6);
}

// Publishes until the client's window is full and its queue has begun to fill.
void fall_behind(Fixture& f, TopicClient& client) {
  client.driver().stop_reading();
  for (int i = 0; i < 40; ++i) f.publish("t", std::string(4096, 'x'));
}

TEST_CASE("topics: a slow event stream loses by its policy, and is told so") {
  TopicLimits limits;
  limits.consumer.messages = 5;
  Fixture f({}, limits);
  f.client(1).get("/topics/t/events?policy=drop-oldest");
  fall_behind(f, f.client(1));
  const std::size_t before = f.client(1).events().size();
  CHECK(before >= 30);
  CHECK(before < 40);
  f.client(1).driver().take(1'000'000);
  const auto events = f.client(1).events();
  REQUIRE(events.size() == 6);
  CHECK(events[0].type == "gap");
  CHECK(json::parse(events[0].data) == json({{"first", fmt::format("abcd1234-{}", before + 1)},
                                             {"last", "abcd1234-35"},
                                             {"reason", "drop-oldest"}}));
  CHECK(events[5].id == "abcd1234-40");
  CHECK(f.topics.consumers().dropped[0] == 35 - before);
}

TEST_CASE("topics: a slow event stream is cut off by the policy or the deadline") {
  TopicLimits limits;
  limits.consumer.messages = 2;
  Fixture f({}, limits);
  f.client(1).get("/topics/t/events?policy=disconnect");
  f.client(2).get("/topics/t/events?policy=drop-newest");
  f.client(2).driver().stop_reading();
  fall_behind(f, f.client(1));
  CHECK(f.client(1).driver().aborted());
  CHECK(!f.client(2).driver().closed());
  f.pass(10s);
  CHECK(f.client(2).driver().aborted());
  CHECK(f.topics.consumers().disconnected[3] == 1);
  CHECK(f.topics.consumers().disconnected[1] == 1);
  CHECK(f.hub.totals().subscriptions == 0);
}

TEST_CASE("topics: a publisher waits for a slow stream, but not for ever") {
  TopicLimits limits;
  limits.consumer.messages = 2;
  Fixture f({}, limits);
  f.client(1).get("/topics/t/events?policy=block-publisher");
  f.client(1).driver().stop_reading();
  std::size_t published = 0;
  while (f.client(0).post("/topics/t", std::string(4096, 'x')).complete()) {
    REQUIRE(f.client(0).read().status == 200);
    f.deliver();
    REQUIRE(++published < 100);
  }
  CHECK(published > 30);

  SECTION("it is told so at the deadline, and nothing is published") {
    f.pass(9999ms);
    CHECK(!f.client(0).read().has_head());
    f.pass(1ms);
    CHECK(f.client(0).read().status == 503);
    CHECK(f.client(0).read().field("Retry-After") == "1");
    CHECK(f.hub.totals().published == published);
    CHECK(!f.client(1).driver().closed());
    f.client(1).driver().take(1'000'000);
    f.deliver();
    CHECK(f.hub.totals().published == published);
  }
  SECTION("it goes on when the stream has room again") {
    f.pass(9s);
    f.client(1).driver().take(1'000'000);
    f.deliver();
    CHECK(f.client(0).read().status == 200);
    CHECK(f.hub.totals().published == published + 1);
    f.client(1).driver().take(1'000'000);
    f.deliver();
    const auto events = f.client(1).events();
    CHECK(events.size() == published + 1);
  }
  SECTION("or when the stream has gone") {
    f.clients[1].reset();
    f.deliver();
    CHECK(f.client(0).read().status == 200);
  }
  SECTION("it may go itself") {
    f.clients[0].reset();
    f.client(1).driver().take(1'000'000);
    f.deliver();
    CHECK(f.hub.totals().published == published);
  }
}

TEST_CASE("topics: one cursor for all transports") {
  Fixture f;
  f.client(1).get("/topics/t/events");
  f.publish("t", "1");
  CHECK(f.client(1).told() == "1:1");
  const std::string id = f.client(1).stream.last_event_id;
  f.publish("t", "2");
  const json answer = json::parse(f.client(2).get("/topics/t?cursor=" + id).body);
  CHECK(answer["messages"].size() == 1);
  CHECK(answer["messages"][0]["data"] == "2");
  f.publish("t", "3");
  f.client(3).get("/topics/t/events?cursor=" + answer["cursor"].get<std::string>());
  CHECK(f.client(3).told() == "3:3");
}

}  // namespace
}  // namespace echolab::test
