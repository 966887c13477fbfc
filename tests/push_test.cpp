// Push over a WebSocket: what is said, what is heard, and what slow ones get, in virtual time.
#include "patterns/push.hpp"

#include <fmt/format.h>
#include <malloc.h>

#include <nlohmann/json.hpp>

#include "patterns/feed.hpp"
#include "tests/catch.hpp"
#include "tests/push_service.hpp"
#include "tests/world.hpp"

namespace echolab::test {
namespace {

std::string id(std::uint64_t number) {
  return fmt::format("0000000e-{}", number);
}
std::string subscribed(const std::string& topic, std::uint64_t cursor,
                       const std::string& policy = "drop-oldest") {
  return fmt::format(R"(text:{{"op":"subscribed","topic":"{}","policy":"{}","cursor":"{}"}})",
                     topic, policy, id(cursor));
}
std::string message(const std::string& topic, std::uint64_t number, const std::string& data) {
  return fmt::format(R"(text:{{"op":"message","id":"{}","topic":"{}","data":"{}"}})", id(number),
                     topic, data);
}
std::string gap(const std::string& topic, std::uint64_t first, std::uint64_t last,
                const std::string& reason) {
  return fmt::format(R"(text:{{"op":"gap","topic":"{}","first":"{}","last":"{}","reason":"{}"}})",
                     topic, id(first), id(last), reason);
}
std::string error(const std::string& reason) {
  return fmt::format(R"(text:{{"op":"error","reason":"{}"}})", reason);
}
std::string subscribe(const std::string& topic, const std::string& more = "") {
  return text_frame(fmt::format(R"({{"op":"subscribe","topic":"{}"{}}})", topic, more));
}
std::string publish(const std::string& topic, const std::string& data,
                    const std::string& more = "") {
  return text_frame(
      fmt::format(R"({{"op":"publish","topic":"{}","data":"{}"{}}})", topic, data, more));
}

TEST_CASE("push: subscribe, hear, unsubscribe") {
  PushService service;
  auto a = service.connect();
  auto b = service.connect();
  a->bytes(subscribe("news"));
  CHECK(a->heard() == Lines{subscribed("news", 0)});
  b->bytes(subscribe("news") + subscribe("other"));
  CHECK(b->heard() == Lines{subscribed("news", 0), subscribed("other", 0)});
  CHECK(service.publish("news", "one") == id(1));
  CHECK(service.publish("other", "two") == id(2));
  CHECK(a->heard() == Lines{message("news", 1, "one")});
  CHECK(b->heard() == Lines{message("news", 1, "one"), message("other", 2, "two")});
  a->bytes(text_frame(R"({"op":"unsubscribe","topic":"news"})"));
  CHECK(a->heard() == Lines{R"(text:{"op":"unsubscribed","topic":"news"})"});
  service.publish("news", "three");
  CHECK(a->heard().empty());
  CHECK(b->heard() == Lines{message("news", 3, "three")});
  a->bytes(subscribe("news"));
  CHECK(a->heard() == Lines{subscribed("news", 3)});
  CHECK(service.hub.topic("news")->subscribers == 2);
  a->bytes(close_frame(1000));
  b->driver.gone();
  CHECK(service.hub.topic("news")->subscribers == 0);
  CHECK(service.context.connections == 0);
}

TEST_CASE("push: publish, with a key and with a ref") {
  PushService service;
  auto a = service.connect();
  a->bytes(subscribe("t"));
  a->bytes(publish("t", "x", R"(,"key":"k","ref":{"n":[1,null]})") + publish("t", "y"));
  service.deliver();
  CHECK(a->heard() ==
        Lines{subscribed("t", 0),
              R"(text:{"op":"published","id":"0000000e-1","ref":{"n":[1,null]}})",
              R"(text:{"op":"published","id":"0000000e-2"})",
              R"(text:{"op":"message","id":"0000000e-1","topic":"t","key":"k","data":"x"})",
              message("t", 2, "y")});
}

TEST_CASE("push: the same wherever the input is cut") {
  const std::string input = subscribe("t") + publish("t", "\xc3\xa9", R"(,"ref":7)") +
                            text_frame("{") + encode({9, "p"}) + close_frame(1000);
  Lines expected;
  for (std::size_t cut = 0; cut < input.size(); ++cut) {
    PushService service;
    auto line = service.connect();
    line->bytes(std::string_view(input).substr(0, cut));
    line->bytes(std::string_view(input).substr(cut));
    const Lines heard = line->heard();
    if (cut == 0) expected = heard;
    INFO("cut at " << cut);
    REQUIRE(heard == expected);
  }
  CHECK(expected == Lines{subscribed("t", 0),
                          R"(text:{"op":"published","id":"0000000e-1","ref":7})",
                          error("not a JSON object"), "pong:p", "close:1000", "closed"});
}

TEST_CASE("push: a URL subscribes at once") {
  PushService service;
  service.publish("a b", "old");
  auto line = service.connect("/ws?topic=a+b&cursor=earliest&policy=conflate");
  CHECK(line->heard() == Lines{subscribed("a b", 0, "conflate"), message("a b", 1, "old")});
  line = service.connect("/ws?topic=a%20b&retained=true");
  CHECK(line->heard() == Lines{subscribed("a b", 0), message("a b", 1, "old")});
  line = service.connect("/ws?topic=a/b");
  CHECK(line->heard() == Lines{error("bad topic name")});
  for (const char* query : {"topic=t&cursor=x", "topic=t&policy=x", "topic=t&retained=1"}) {
    SessionDriver driver(service.session());
    driver.feed(fmt::format("GET /ws?{}{}\r\n", query, kHandshake));
    CHECK(driver.output().starts_with("HTTP/1.1 400 "));
  }
}

TEST_CASE("push: who comes back gets what was missed, or is told of the gap") {
  patterns::HubLimits limits;
  limits.ring_messages = 4;
  PushService service(limits);
  for (int i = 1; i <= 6; ++i) service.publish("t", std::to_string(i));
  auto line = service.connect();
  SECTION("from an id") {
    line->bytes(subscribe("t", R"(,"cursor":"0000000e-4")"));
    CHECK(line->heard() == Lines{subscribed("t", 4), message("t", 5, "5"), message("t", 6, "6")});
  }
  SECTION("from an id that has left the history") {
    line->bytes(subscribe("t", R"(,"cursor":"0000000e-1")"));
    CHECK(line->heard() == Lines{subscribed("t", 1), gap("t", 2, 2, "evicted"),
                                 message("t", 3, "3"), message("t", 4, "4"), message("t", 5, "5"),
                                 message("t", 6, "6")});
  }
  SECTION("from the beginning") {
    // What it is told it begins behind is where a reconnection without a gap would begin.
    line->bytes(subscribe("t", R"(,"cursor":"earliest")"));
    const Lines heard = line->heard();
    REQUIRE(heard.size() == 5);
    CHECK(heard[0] == subscribed("t", 2));
    CHECK(heard[1] == message("t", 3, "3"));
  }
  SECTION("from an id of another start") {
    line->bytes(subscribe("t", R"(,"cursor":"0000000d-3")"));
    const Lines heard = line->heard();
    REQUIRE(heard.size() == 6);
    CHECK(heard[0].ends_with(R"("cursor":"0000000d-3"})"));  // until its gap is told
    CHECK(heard[1] == gap("t", 0, 2, "restarted"));
    CHECK(heard[2] == message("t", 3, "3"));
  }
  SECTION("with the last one only") {
    line->bytes(subscribe("t", R"(,"retained":true)"));
    CHECK(line->heard() == Lines{subscribed("t", 5), message("t", 6, "6")});
  }
  SECTION("from now on") {
    line->bytes(subscribe("t", R"(,"cursor":"latest","retained":false)"));
    CHECK(line->heard() == Lines{subscribed("t", 6)});
    service.publish("t", "7");
    CHECK(line->heard() == Lines{message("t", 7, "7")});
  }
}

TEST_CASE("push: all topics") {
  PushService service;
  auto line = service.connect("/ws?topic=*");
  service.publish("a", "1");
  service.publish("b", "2");
  CHECK(line->heard() == Lines{subscribed("*", 0), message("a", 1, "1"), message("b", 2, "2")});
}

TEST_CASE("push: with compression agreed on, each client gets its own kind of frame") {
  PushService service;
  auto plain = service.connect("/ws?topic=t");
  auto deflating = service.connect("/ws?topic=t", true);
  plain->heard(), deflating->heard();
  const std::string data(200, 'z');
  service.publish("t", data);
  const std::string text = message("t", 1, data);
  CHECK(plain->heard() == Lines{text});
  CHECK(deflating->heard() == Lines{"text*:" + text.substr(5)});
}

TEST_CASE("push: nonsense is answered by an error, and the connection goes on") {
  PushService service;
  service.context.push.subscriptions = 2;
  auto line = service.connect();
  const auto says = [&](const std::string& json) {
    line->bytes(text_frame(json));
    const Lines heard = line->heard();
    REQUIRE(heard.size() == 1);
    return heard[0];
  };
  for (const char* json : {"", "{", "[]", "1", "\"subscribe\"", "{}{}", R"({"op":"\ud800"})"}) {
    CHECK(says(json) == error("not a JSON object"));
  }
  CHECK(says("{}") == error("op must be subscribe, unsubscribe or publish"));
  CHECK(says(R"({"op":1})") == error("op must be a string"));
  CHECK(says(R"({"op":"dance","topic":"t"})") ==
        error("op must be subscribe, unsubscribe or publish"));
  CHECK(says(R"({"op":"subscribe"})") == error("topic is missing"));
  CHECK(says(R"({"op":"subscribe","topic":7})") == error("topic must be a string"));
  CHECK(says(R"({"op":"subscribe","topic":""})") == error("bad topic name"));
  CHECK(says(R"({"op":"subscribe","topic":"t","cursor":"tomorrow"})") == error("bad cursor"));
  CHECK(says(R"({"op":"subscribe","topic":"t","cursor":"0000000e-1"})") == error("bad cursor"));
  CHECK(says(R"({"op":"subscribe","topic":"t","policy":"hope"})") == error("unknown policy"));
  CHECK(says(R"({"op":"subscribe","topic":"t","retained":1})") ==
        error("retained must be true or false"));
  CHECK(says(R"({"op":"unsubscribe","topic":"t"})") == error("not subscribed"));
  CHECK(says(R"({"op":"publish","topic":"t"})") == error("data is missing"));
  CHECK(says(R"({"op":"publish","topic":"t","data":{}})") == error("data must be a string"));
  CHECK(says(R"({"op":"publish","topic":"*","data":""})") == error("bad topic name"));
  CHECK(says(R"({"op":"publish","topic":"t","data":")" + std::string(65 * 1024, 'x') + "\"}") ==
        error("data too big"));
  CHECK(says(R"({"op":"x","ref":"r"})") ==
        R"(text:{"op":"error","reason":"op must be subscribe, unsubscribe or publish","ref":"r"})");
  // Deep enough to end a stack that is not asked.
  const std::string deep(200'000, '[');
  CHECK(says(R"({"op":"x","ref":)" + deep + std::string(deep.size(), ']') + "}") ==
        error("nested too deeply"));
  line->bytes(subscribe("a") + subscribe("a") + subscribe("b") + subscribe("c"));
  CHECK(line->heard() == Lines{subscribed("a", 0), error("already subscribed"), subscribed("b", 0),
                               error("too many subscriptions on this connection")});
  line->bytes(encode({2, "{}"}));
  CHECK(line->heard() == Lines{"close:1003"});
}

TEST_CASE("push: an object of very many members is read in no time") {
  // Looking through all of them for each would take minutes.
  PushService service;
  auto line = service.connect();
  std::string members;
  for (int i = 0; i < 80'000; ++i) members += fmt::format(R"("{}":0,)", i);
  line->bytes(text_frame(R"({"op":"x","ref":{)" + members + R"("last":1}})"));
  const Lines heard = line->heard();
  REQUIRE(heard.size() == 1);
  CHECK(heard[0].ends_with(R"("last":1}})"));
}

// ---- slow consumers -----------------------------------------------------------------------------

const std::string kHeld = "a subscriber holds the topic up; not published";
constexpr std::size_t kBig = 10'000;  // bytes of data; the window takes 14 of them

// Subscribed, and takes nothing from now on. Its window is full with the messages 1 to n.
struct Slow {
  explicit Slow(PushService& service, const std::string& policy)
      : line(service.connect("/ws?topic=t&policy=" + policy)) {
    CHECK(line->heard() == Lines{subscribed("t", 0, policy)});
    line->driver.stop_reading();
    while (sent < patterns::kSendWindow) {
      service.publish("t", std::string(kBig, 'x'));
      ++filled;
      for (const std::string& text : line->heard()) sent += text.size();
    }
  }
  // Takes all there is, and what follows from that.
  Lines take_all() {
    Lines all;
    for (int i = 0; i < 10; ++i) {
      line->driver.take(1'000'000);
      const Lines some = line->heard();
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }
  std::unique_ptr<WsLine> line;
  std::uint64_t filled = 0;
  std::size_t sent = 0;
};
patterns::ConsumerLimits few() {
  patterns::ConsumerLimits limits;
  limits.messages = 3;
  limits.deadline = 10s;
  return limits;
}

TEST_CASE("push: drop-oldest keeps the newest and tells of the gap") {
  PushService service;
  service.context.consumer = few();
  Slow slow(service, "drop-oldest");
  const std::uint64_t n = slow.filled;
  for (int i = 1; i <= 5; ++i) service.publish("t", std::to_string(i));
  CHECK(slow.line->heard().empty());
  CHECK(slow.take_all() == Lines{gap("t", n + 1, n + 2, "drop-oldest"), message("t", n + 3, "3"),
                                 message("t", n + 4, "4"), message("t", n + 5, "5")});
  CHECK(service.totals.dropped[0] == 2);
  service.publish("t", "6");
  CHECK(slow.line->heard() == Lines{message("t", n + 6, "6")});
}

TEST_CASE("push: drop-newest keeps the oldest and tells of the gap") {
  PushService service;
  service.context.consumer = few();
  Slow slow(service, "drop-newest");
  const std::uint64_t n = slow.filled;
  for (int i = 1; i <= 5; ++i) service.publish("t", std::to_string(i));
  CHECK(slow.take_all() == Lines{message("t", n + 1, "1"), message("t", n + 2, "2"),
                                 message("t", n + 3, "3"), gap("t", n + 4, n + 5, "drop-newest")});
}

TEST_CASE("push: conflate keeps the newest of each key") {
  PushService service;
  service.context.consumer = few();
  Slow slow(service, "conflate");
  const std::uint64_t n = slow.filled;
  for (int i = 1; i <= 8; ++i) service.publish("t", std::to_string(i), i % 2 == 0 ? "even" : "odd");
  const Lines heard = slow.take_all();
  REQUIRE(heard.size() == 3);
  CHECK(heard[0] == gap("t", n + 1, n + 6, "conflate"));
  CHECK(heard[1].find(R"("key":"odd","data":"7")") != std::string::npos);
  CHECK(heard[2].find(R"("key":"even","data":"8")") != std::string::npos);
}

TEST_CASE("push: disconnect closes with 1013, and cuts off who does not take even that") {
  PushService service;
  service.context.consumer = few();
  Slow slow(service, "disconnect");
  for (int i = 1; i <= 3; ++i) service.publish("t", std::to_string(i));
  CHECK(slow.line->heard().empty());
  service.publish("t", "4");
  CHECK(slow.line->heard() == Lines{"close:1013"});
  CHECK(service.hub.topic("t")->subscribers == 0);
  SECTION("it takes and answers") {
    slow.line->driver.take(1'000'000);
    slow.line->bytes(close_frame(1013));
    CHECK(slow.line->heard() == Lines{"closed"});
  }
  SECTION("it does not") {
    slow.line->driver.pass(service.context.websocket.close);
    CHECK(slow.line->heard() == Lines{"aborted"});
  }
}

TEST_CASE("push: who is at its bound for too long is disconnected, whatever the policy") {
  PushService service;
  service.context.consumer = few();
  Slow slow(service, "drop-oldest");
  for (int i = 1; i <= 4; ++i) service.publish("t", std::to_string(i));
  slow.line->driver.pass(10s - 1ms);
  CHECK(slow.line->heard().empty());
  slow.line->driver.pass(1ms);
  CHECK(slow.line->heard() == Lines{"close:1013"});
}

TEST_CASE("push: block-publisher makes publishers wait, in order, and nothing else") {
  PushService service;
  service.context.consumer = few();
  service.context.push.waiting = 3;
  Slow slow(service, "block-publisher");
  const std::uint64_t n = slow.filled;
  auto publisher = service.connect();
  std::uint64_t published = 0;
  // Until the topic is held up: the queue takes what it has room for.
  for (int i = 1; i <= 20 && publisher->driver.callbacks() > 0; ++i) {
    publisher->bytes(publish("t", std::to_string(i), fmt::format(R"(,"ref":{})", i)));
    service.deliver();
    if (publisher->heard().empty()) break;
    ++published;
  }
  REQUIRE(published < 20);
  CHECK(published >= 3);
  // Others wait behind it, even those that could go: that is their order.
  publisher->bytes(publish("free", "x") + publish("t", "y") + encode({9, "alive?"}));
  CHECK(publisher->heard() == Lines{"pong:alive?"});
  publisher->bytes(publish("t", "z", R"(,"ref":"last")"));
  CHECK(publisher->heard() ==
        Lines{R"(text:{"op":"error","reason":"too many publications are waiting","ref":"last"})"});
  SECTION("until there is room") {
    std::vector<std::string> heard;
    for (int i = 0; i < 10; ++i) {
      slow.line->driver.take(1'000'000);
      service.deliver();
      for (std::string& line : slow.line->heard()) heard.push_back(std::move(line));
    }
    const Lines answers = publisher->heard();
    REQUIRE(answers.size() == 3);
    CHECK(answers[0] == fmt::format(R"(text:{{"op":"published","id":"{}","ref":{}}})",
                                    id(n + published + 1), published + 1));
    CHECK(answers[1] ==
          fmt::format(R"(text:{{"op":"published","id":"{}"}})", id(n + published + 2)));
    CHECK(answers[2] ==
          fmt::format(R"(text:{{"op":"published","id":"{}"}})", id(n + published + 3)));
    // Nothing is lost.
    REQUIRE(heard.size() == published + 2);
    for (std::uint64_t i = 1; i <= published + 1; ++i) {
      CHECK(heard[i - 1] == message("t", n + i, std::to_string(i)));
    }
    CHECK(heard.back() == message("t", n + published + 3, "y"));
  }
  SECTION("until the slow one is gone") {
    slow.line->driver.gone();
    service.deliver();
    CHECK(publisher->heard().size() == 3);
  }
  SECTION("but not for ever") {
    // All said at the same time: no answer but these, and nothing was published.
    publisher->driver.pass(service.context.consumer.deadline - 1ms);
    CHECK(publisher->heard().empty());
    publisher->driver.pass(1ms);
    const Lines answers = publisher->heard();
    REQUIRE(answers.size() == 3);
    CHECK(answers[0] ==
          fmt::format(R"(text:{{"op":"error","reason":"{}","ref":{}}})", kHeld, published + 1));
    CHECK(answers[1] == error(kHeld));
    CHECK(answers[2] == error(kHeld));
    CHECK(service.hub.totals().published == n + published);
    // Its place is given up, and later ones go on as if there had been none.
    publisher->bytes(publish("free", "x"));
    CHECK(publisher->heard() ==
          Lines{fmt::format(R"(text:{{"op":"published","id":"{}"}})", id(n + published + 1))});
  }
  SECTION("what waited behind it goes on when it is given up") {
    publisher->driver.pass(1s);
    auto other = service.connect();
    other->driver.pass(1s);
    other->bytes(publish("t", "first"));
    other->driver.pass(1s);
    other->bytes(publish("free", "second"));
    other->driver.pass(9s);
    const Lines answers = other->heard();
    REQUIRE(answers.size() == 2);
    CHECK(answers[0] == error(kHeld));
    CHECK(answers[1] ==
          fmt::format(R"(text:{{"op":"published","id":"{}"}})", id(n + published + 1)));
  }
  SECTION("or until the publisher is") {
    publisher->driver.gone();
    slow.line->driver.gone();
    service.deliver();
    CHECK(service.hub.totals().published == n + published);
  }
}

TEST_CASE("push: what waits is bounded in bytes, with the refs") {
  PushService service;
  service.context.consumer = few();
  service.context.push.waiting_bytes = 10'000;
  Slow slow(service, "block-publisher");
  auto publisher = service.connect();
  const std::string ref = "\"" + std::string(4000, 'r') + "\"";
  Lines heard;
  for (int i = 0; i < 20 && heard.size() < 3; ++i) {
    publisher->bytes(publish("t", "x", R"(,"ref":)" + ref));
    service.deliver();
    for (std::string& line : publisher->heard()) {
      if (line.starts_with(R"(text:{"op":"error")")) heard.push_back(line);
    }
  }
  REQUIRE(heard.size() == 3);
  CHECK(heard[0] == fmt::format(R"(text:{{"op":"error","reason":"{}","ref":{}}})",
                                "too many publications are waiting", ref));
  const std::uint64_t before = service.hub.totals().published;
  slow.line->driver.gone();
  service.deliver();
  CHECK(service.hub.totals().published == before + 2);
}

TEST_CASE("push: an idle subscriber costs less than 4 KiB") {
  constexpr std::size_t kClients = 500;
  PushService service;
  std::vector<std::unique_ptr<WsLine>> lines;
  lines.reserve(kClients);
  const std::size_t before = mallinfo2().uordblks;
  for (std::size_t i = 0; i < kClients; ++i) {
    lines.push_back(service.connect("/ws?topic=t", true));
    lines.back()->heard();
  }
  service.publish("t", std::string(1000, 'x'));
  for (auto& line : lines) {
    CHECK(line->heard().size() == 1);
    line->bytes(publish("own", "hello"));
    CHECK(line->heard().size() == 1);
  }
  const std::size_t each = (mallinfo2().uordblks - before) / kClients;
  INFO(each << " bytes each, the test's own included");
  // A sanitizer's allocator is not the one that is measured.
  if (scaled(1, 0) == 1) CHECK(each <= 4096);
  const std::size_t rings = lines[0]->driver.deadlines();
  lines[0]->driver.pass(service.context.websocket.heartbeat - 1ms);
  CHECK(lines[0]->driver.deadlines() == rings);
}

}  // namespace
}  // namespace echolab::test
