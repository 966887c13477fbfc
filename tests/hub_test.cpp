// The hub: ids and cursors, history and gaps, who is rung when, who has to wait, and what is
// refused.

#include "patterns/hub.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <latch>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "tests/catch.hpp"
#include "tests/hub_doubles.hpp"
#include "tests/world.hpp"

namespace echolab::test {
namespace {

using namespace patterns;
using From = Hub::Cursor::From;
using Refusal = Hub::Refusal;

struct HubFixture {
  explicit HubFixture(const HubLimits& limits = {}) : hub(poster, limits, kEpoch) {}

  Hub::Published publish(std::string_view topic, std::string_view data = "x") {
    Hub::Turn turn;
    return hub.publish(topic, "", data, conn(99), turn);
  }
  Hub::Subscription subscribe(std::string_view topic, Hub::Join join = {}, std::uint32_t who = 1) {
    Hub::Subscription subscription;
    REQUIRE(hub.subscribe(topic, conn(who), join, subscription) == Refusal::none);
    return subscription;
  }
  std::size_t rung() {
    std::size_t n = 0;
    for (const auto& call : poster.take()) n += call.who.size();
    return n;
  }

  RecordingPoster poster;
  Hub hub;
};

Hub::Join after(std::uint64_t number) {
  return {{From::after, number}, false, false};
}
const Hub::Join kEarliest = {{From::earliest, 0}, false, false};
const Hub::Join kBlocks = {{}, false, true};

// "g1-2 3 4"
std::string told(const Hub::News& news) {
  std::string all;
  if (news.gap) all = fmt::format("g{}-{} ", news.gap->first, news.gap->last);
  for (const MessagePtr& message : news.messages) all += fmt::format("{} ", message->number);
  if (!all.empty()) all.pop_back();
  return all;
}

TEST_CASE("hub: a cursor is an id, earliest or latest, and nothing else") {
  HubFixture f;
  for (int i = 0; i < 12; ++i) f.publish("t");
  CHECK(f.hub.id_of(12) == "abcd1234-12");
  CHECK(f.hub.parse_cursor("latest")->from == From::latest);
  CHECK(f.hub.parse_cursor("earliest")->from == From::earliest);
  CHECK(f.hub.parse_cursor("abcd1234-12")->from == From::after);
  CHECK(f.hub.parse_cursor("abcd1234-12")->number == 12);
  CHECK(f.hub.parse_cursor("abcd1234-0")->number == 0);
  CHECK(f.hub.parse_cursor("00000000-7")->from == From::restarted);
  for (const char* bad : {"", "abcd1234", "abcd1234-", "abcd1234-13", "abcd1234--1", "abcd123-1",
                          "abcd1234-1x", "abcd12345-1", "xbcd1234-1", "abcd1234_1", "abcd1234- 1",
                          "abcd1234-18446744073709551616", "Latest", "-abcd123-1", "0xabcd12-1"}) {
    INFO(bad);
    CHECK(!f.hub.parse_cursor(bad));
  }
}

TEST_CASE("hub: numbers grow along all topics, and each subscriber gets its own topic in order") {
  HubFixture f;
  auto a = f.subscribe("a");
  auto b = f.subscribe("b");
  auto all = f.subscribe("*");
  CHECK(f.publish("a").number == 1);
  CHECK(f.publish("b").number == 2);
  const auto third = f.publish("a");
  CHECK(third.number == 3);
  CHECK(third.subscribers == 2);  // a's own and that of "*"
  CHECK(told(a.fetch(kAnyRoom)) == "1 3");
  CHECK(told(b.fetch(kAnyRoom)) == "2");
  CHECK(told(all.fetch(kAnyRoom)) == "1 2 3");
  CHECK(told(a.fetch(kAnyRoom)).empty());
}

TEST_CASE("hub: a subscriber is rung once, and again when it has fetched") {
  HubFixture f;
  auto s = f.subscribe("t");
  f.publish("t");
  CHECK(f.rung() == 0);  // it has not fetched yet: it will
  CHECK(told(s.fetch(kAnyRoom)) == "1");
  f.publish("t");
  const auto calls = f.poster.take();
  REQUIRE(calls.size() == 1);
  CHECK(calls[0].who == std::vector{conn(1)});
  CHECK(calls[0].post.topic == s.topic());
  CHECK(calls[0].post.topic < Hub::kTicket);
  CHECK(!calls[0].post.frame);
  f.publish("t");
  CHECK(f.rung() == 0);
  CHECK(told(s.fetch(kAnyRoom)) == "2 3");
  f.publish("other");
  CHECK(f.rung() == 0);
  f.publish("t");
  CHECK(f.rung() == 1);
}

TEST_CASE("hub: one post for all subscribers of a topic") {
  HubFixture f;
  std::vector<Hub::Subscription> many;
  for (std::uint32_t i = 0; i < 100; ++i) {
    many.push_back(f.subscribe("t", {}, i));
    many.back().fetch(kAnyRoom);
  }
  many.erase(many.begin() + 50);
  CHECK(f.publish("t").subscribers == 99);
  const auto calls = f.poster.take();
  REQUIRE(calls.size() == 1);
  CHECK(calls[0].who.size() == 99);
  CHECK(std::find(calls[0].who.begin(), calls[0].who.end(), conn(50)) == calls[0].who.end());
}

TEST_CASE("hub: a fetch takes as much as there is room for") {
  HubFixture f;
  auto s = f.subscribe("t");
  for (int i = 0; i < 5; ++i) f.publish("t", std::string(9, 'x'));  // 10 bytes with the topic
  Hub::News news = s.fetch({2, 1000, true});
  CHECK(told(news) == "1 2");
  CHECK(news.more);
  CHECK(s.cursor() == 2);
  news = s.fetch({100, 15, true});
  CHECK(told(news) == "3");
  CHECK(news.more);
  CHECK(told(s.fetch({100, 5, false})).empty());
  CHECK(told(s.fetch({0, 1000, true})).empty());
  CHECK(told(s.fetch({100, 5, true})) == "4");
  f.publish("t");
  CHECK(f.rung() == 1);  // the last fetch has armed it, though there was more
  news = s.fetch(kAnyRoom);
  CHECK(told(news) == "5 6");
  CHECK(!news.more);
}

TEST_CASE("hub: what was evicted beyond a cursor is a gap") {
  HubLimits limits;
  limits.ring_messages = 3;
  HubFixture f(limits);
  auto slow = f.subscribe("t");
  for (int i = 0; i < 10; ++i) f.publish("t");
  const Hub::News news = slow.fetch(kAnyRoom);
  CHECK(told(news) == "g1-7 8 9 10");
  CHECK(std::string(news.gap->reason) == "evicted");
  CHECK(told(f.subscribe("t", after(7)).fetch(kAnyRoom)) == "8 9 10");
  CHECK(told(f.subscribe("t", after(6)).fetch(kAnyRoom)) == "g7-7 8 9 10");
  CHECK(told(f.subscribe("t", after(9)).fetch(kAnyRoom)) == "10");
  CHECK(told(f.subscribe("t", kEarliest).fetch(kAnyRoom)) == "8 9 10");
  CHECK(told(f.subscribe("t").fetch(kAnyRoom)).empty());
  CHECK(told(f.subscribe("*", after(0)).fetch(kAnyRoom)) == "g1-7 8 9 10");
  for (int i = 0; i < 10; ++i) f.publish("other");
  CHECK(told(f.subscribe("t", after(9)).fetch(kAnyRoom)) == "10");  // each has a ring of its own
}

TEST_CASE("hub: the ring is bounded in bytes, but keeps its newest message") {
  HubLimits limits;
  limits.ring_bytes = 4096;
  HubFixture f(limits);
  for (int i = 0; i < 100; ++i) f.publish("t", std::string(100, 'x'));
  CHECK(f.hub.totals().history_bytes <= 4096);
  f.publish("t", std::string(10'000, 'y'));
  const auto info = f.hub.topic("t");
  REQUIRE(info);
  CHECK(info->first == 101);
  CHECK(info->last == 101);
  CHECK(info->retained->data.size() == 10'000);
  CHECK(f.hub.totals().evicted == 100);
}

TEST_CASE("hub: the retained message comes first, to those who ask") {
  HubFixture f;
  const Hub::Join retained = {{}, true, false};
  CHECK(told(f.subscribe("t", retained).fetch(kAnyRoom)).empty());
  f.publish("t");
  f.publish("t");
  f.publish("other");
  CHECK(told(f.subscribe("t", retained).fetch(kAnyRoom)) == "2");
  CHECK(told(f.subscribe("*", retained).fetch(kAnyRoom)) == "3");
  CHECK(told(f.subscribe("t").fetch(kAnyRoom)).empty());
  CHECK(told(f.subscribe("t", {{From::after, 2}, true, false}).fetch(kAnyRoom)).empty());
}

TEST_CASE("hub: a cursor from before a restart gets a gap and all that there is") {
  HubFixture f;
  const auto cursor = f.hub.parse_cursor("00000001-500");
  REQUIRE(cursor);
  auto early = f.subscribe("t", {*cursor, false, false});
  Hub::News news = early.fetch(kAnyRoom);
  CHECK(told(news) == "g0-0");
  CHECK(std::string(news.gap->reason) == "restarted");
  f.publish("other");
  f.publish("t");
  CHECK(told(early.fetch(kAnyRoom)) == "2");
  CHECK(told(f.subscribe("t", {*cursor, false, false}).fetch(kAnyRoom)) == "g0-1 2");
}

TEST_CASE("hub: history from before a subscription is told from what came later") {
  HubFixture f;
  for (int i = 0; i < 4; ++i) f.publish("t");
  auto s = f.subscribe("t", after(1));
  f.publish("t");
  CHECK(!s.fetch({2, 1000, true}).live);
  CHECK(s.fetch({1, 1000, true}).live);
  CHECK(f.subscribe("t").fetch(kAnyRoom).live);
}

TEST_CASE("hub: topics without a message end with their last subscriber") {
  HubFixture f;
  {
    auto a = f.subscribe("a");
    auto b = f.subscribe("a");
    CHECK(f.hub.totals().topics == 1);
    CHECK(f.hub.topic("a")->subscribers == 2);
    a = {};
    CHECK(f.hub.topic("a")->subscribers == 1);
  }
  CHECK(!f.hub.topic("a"));
  CHECK(f.hub.totals().topics == 0);
  CHECK(f.hub.totals().subscriptions == 0);
  f.publish("a");
  { auto a = f.subscribe("a"); }
  REQUIRE(f.hub.topic("a"));
  CHECK(f.hub.topic("a")->retained->number == 1);
  f.publish("c");
  f.publish("b");
  const auto list = f.hub.topics(2);
  REQUIRE(list.size() == 2);
  CHECK(list[0].name == "a");
  CHECK(list[1].name == "b");
}

TEST_CASE("hub: everything that a client can make grow is bounded") {
  HubLimits limits;
  limits.topics = 2;
  limits.subscriptions = 3;
  limits.message = 100;
  limits.key = 10;
  HubFixture f(limits);
  Hub::Turn turn;
  const auto refusal = [&](std::string_view topic, std::string_view key, std::string_view data) {
    return f.hub.publish(topic, key, data, conn(1), turn).refusal;
  };
  for (const std::string bad : {"", "*", "a/b", "a\n", "\x7f", "caf\xc3\xa9", "/"}) {
    INFO(bad);
    CHECK(refusal(bad, "", "x") == Refusal::name);
  }
  CHECK(refusal(std::string(257, 'a'), "", "x") == Refusal::name);
  CHECK(refusal("t", std::string(11, 'k'), "x") == Refusal::key);
  CHECK(refusal("t", "\xff", "x") == Refusal::key);
  CHECK(refusal("t", "", std::string(101, 'x')) == Refusal::size);
  CHECK(refusal("t", "", "\xc0\x80") == Refusal::text);
  CHECK(f.hub.totals().topics == 0);
  CHECK(refusal(std::string(256, 'a'), "", std::string(100, 'x')) == Refusal::none);
  CHECK(refusal("t ~!*", "", "") == Refusal::none);
  CHECK(refusal("u", "", "x") == Refusal::topics);
  Hub::Subscription s;
  CHECK(f.hub.subscribe("u", conn(1), {}, s) == Refusal::topics);
  CHECK(!s);
  CHECK(f.hub.subscribe("a/b", conn(1), {}, s) == Refusal::name);
  std::vector<Hub::Subscription> three;
  for (int i = 0; i < 3; ++i) three.push_back(f.subscribe("t ~!*"));
  CHECK(f.hub.subscribe("*", conn(1), {}, s) == Refusal::subscriptions);
  three.pop_back();
  CHECK(f.hub.subscribe("*", conn(1), {}, s) == Refusal::none);
}

TEST_CASE("hub: the history of all topics is bounded, the oldest goes first") {
  HubLimits limits;
  limits.history_bytes = 20 * 1024;
  HubFixture f(limits);
  for (int i = 0; i < 10; ++i) f.publish("a", std::string(800, 'a'));
  for (int i = 0; i < 30; ++i) {
    REQUIRE(f.publish("b", std::string(800, 'b')).refusal == Refusal::none);
    REQUIRE(f.hub.totals().history_bytes <= limits.history_bytes);
  }
  CHECK(f.hub.topic("a")->first == 10);  // only the retained one is left
  CHECK(f.hub.topic("b")->first > 11);
  CHECK(told(f.subscribe("a", after(0)).fetch(kAnyRoom)) == "g1-9 10");
  std::size_t made = 0;
  while (f.publish(fmt::format("t{}", made), std::string(800, 't')).refusal == Refusal::none) {
    REQUIRE(f.hub.totals().history_bytes <= limits.history_bytes);
    REQUIRE(++made < 1000);
  }
  CHECK(f.publish("new", std::string(800, 't')).refusal == Refusal::history);
  CHECK(f.publish("a", std::string(800, 'a')).refusal == Refusal::none);  // takes its own place
  CHECK(f.publish("a", std::string(2000, 'a')).refusal == Refusal::history);
  CHECK(f.hub.totals().history_bytes <= limits.history_bytes);
}

TEST_CASE("hub: a full history is taken from a subscriber that blocks its own topic, as a gap") {
  HubLimits limits;
  limits.history_bytes = 20 * 1024;
  HubFixture f(limits);
  auto s = f.subscribe("a", kBlocks);
  for (int i = 0; i < 10; ++i) f.publish("a", std::string(800, 'a'));
  for (int i = 0; i < 30; ++i) {
    REQUIRE(f.publish("b", std::string(800, 'b')).number > 0);  // never held
  }
  CHECK(f.hub.totals().history_bytes <= limits.history_bytes);
  CHECK(told(s.fetch(kAnyRoom)) == "g1-9 10");
}

TEST_CASE("hub: a subscriber that holds a topic makes its publishers wait") {
  HubFixture f;
  auto s = f.subscribe("t", kBlocks);
  s.fetch(kAnyRoom);
  s.hold(true);
  Hub::Turn one, two;
  CHECK(f.hub.publish("t", "", "1", conn(7), one).held);
  CHECK(f.hub.publish("t", "", "2", conn(8), two).held);
  CHECK(one);
  CHECK(f.publish("other").number == 1);  // goes on
  CHECK(f.rung() == 0);
  CHECK(f.hub.totals().held == 2);
  two = {};  // its client has gone

  SECTION("until it lets go") {
    s.hold(false);
  }
  SECTION("or goes") {
    s = {};
  }
  const auto calls = f.poster.take();
  REQUIRE(calls.size() == 1);
  CHECK(calls[0].who == std::vector{conn(7)});
  CHECK(f.hub.publish("t", "", "1", conn(7), one).number == 2);
  CHECK(!one);
}

TEST_CASE("hub: of two that hold, both must let go; '*' holds everything") {
  HubFixture f;
  auto a = f.subscribe("t", kBlocks);
  auto b = f.subscribe("*", kBlocks);
  a.hold(true);
  b.hold(true);
  Hub::Turn turn;
  CHECK(f.hub.publish("t", "", "1", conn(7), turn).held);
  a.hold(false);
  CHECK(f.rung() == 1);
  CHECK(f.hub.publish("t", "", "1", conn(7), turn).held);  // by "*"
  CHECK(f.publish("u").held);
  CHECK(f.hub.totals().topics == 1);  // nothing is created while it is held up
  b.hold(true);
  CHECK(f.rung() == 0);
  b.hold(false);
  CHECK(f.rung() == 1);
  CHECK(f.hub.publish("t", "", "1", conn(7), turn).number == 1);
  turn = {};
}

TEST_CASE("hub: nothing is evicted that a blocking subscriber has not fetched") {
  HubLimits limits;
  limits.ring_messages = 3;
  HubFixture f(limits);
  auto s = f.subscribe("t", kBlocks);
  auto other = f.subscribe("t");
  for (int i = 0; i < 3; ++i) CHECK(!f.publish("t").held);
  Hub::Turn turn;
  CHECK(f.hub.publish("t", "", "x", conn(7), turn).held);
  other.fetch(kAnyRoom);
  CHECK(f.rung() == 0);
  CHECK(told(s.fetch({1, 1000, true})) == "1");
  CHECK(f.rung() == 1);  // the publisher
  CHECK(f.hub.publish("t", "", "x", conn(7), turn).number == 4);
  CHECK(f.hub.publish("t", "", "x", conn(7), turn).held);
  CHECK(told(s.fetch(kAnyRoom)) == "2 3 4");
  for (int i = 0; i < 3; ++i) CHECK(!f.publish("t").held);
  CHECK(f.publish("t").held);
  s = {};
  CHECK(!f.publish("t").held);
}

TEST_CASE("hub: a frame is made once per transport and shared") {
  HubFixture f;
  Hub::Turn turn;
  auto s = f.subscribe("t");
  f.hub.publish("t", "k", "one\ntwo", conn(1), turn);
  const Hub::News news = s.fetch(kAnyRoom);
  REQUIRE(news.messages.size() == 1);
  const auto text = [&](Transport transport) {
    const Frame frame = f.hub.frame(news.messages[0], transport);
    CHECK(f.hub.frame(news.messages[0], transport) == frame);
    return std::string(reinterpret_cast<const char*>(frame->data()), frame->size());
  };
  const std::string json = R"({"id":"abcd1234-1","topic":"t","key":"k","data":"one\ntwo"})";
  CHECK(text(Transport::json) == json);
  const auto chunk = [](const std::string& event) {
    return fmt::format("{:x}\r\n{}\r\n", event.size(), event);
  };
  CHECK(text(Transport::sse) == chunk("id: abcd1234-1\ndata: one\ndata: two\n\n"));
  CHECK(text(Transport::sse_all) == chunk("id: abcd1234-1\ndata: " + json + "\n\n"));
  const std::string frame = text(Transport::websocket);
  CHECK(frame.size() > json.size());
  CHECK(frame[0] == '\x81');  // one final text frame
  CHECK(text(Transport::websocket_deflate) != frame);
}

TEST_CASE("hub: random schedules: messages and gaps cover every number behind the cursor") {
  for (std::uint64_t round = 0; round < scaled(200, 30); ++round) {
    const std::uint64_t s = seed() + round;
    INFO("seed " << s);
    std::mt19937_64 random(s);
    HubLimits limits;
    limits.ring_messages = 1 + random() % 12;
    limits.history_bytes = random() % 2 == 0 ? 8 * 1024 : 1024 * 1024;
    HubFixture f(limits);
    const std::vector<std::string> topics = {"a", "b", "c"};
    std::map<std::string, std::vector<std::uint64_t>> published;
    struct Reader {
      std::string topic;
      Hub::Subscription subscription;
      std::uint64_t from;                  // its cursor at the start
      std::uint64_t seen;                  // the last number that it was given, or knows as lost
      std::vector<std::uint64_t> covered;  // delivered or declared
    };
    std::vector<Reader> readers;
    const auto fetch = [&](Reader& r, Hub::Room room) {
      const Hub::News news = r.subscription.fetch(room);
      const std::vector<std::uint64_t>& all = published[r.topic];
      if (news.gap) {
        REQUIRE(news.gap->first > r.seen);
        for (const std::uint64_t n : all) {
          if (n >= news.gap->first && n <= news.gap->last) r.covered.push_back(n);
        }
        r.seen = news.gap->last;
      }
      for (const MessagePtr& message : news.messages) {
        REQUIRE(message->number > r.seen);
        r.covered.push_back(message->number);
        r.seen = message->number;
      }
      return news.more;
    };
    for (int step = 0; step < 300; ++step) {
      const std::uint64_t what = random() % 10;
      if (what < 6) {
        const std::string& topic = topics[random() % topics.size()];
        const auto p = f.publish(topic, std::string(random() % 200, 'x'));
        REQUIRE(p.refusal == Refusal::none);
        published[topic].push_back(p.number);
        published["*"].push_back(p.number);
      } else if (what == 6) {
        const std::string topic = random() % 4 == 0 ? "*" : topics[random() % topics.size()];
        const std::uint64_t cursor = random() % (published["*"].size() + 1);
        readers.push_back({topic, f.subscribe(topic, after(cursor)), cursor, cursor, {}});
      } else if (!readers.empty()) {
        Reader& r = readers[random() % readers.size()];
        if (what == 7) {  // goes, and comes back with the last it has seen
          r.subscription = {};
          r.subscription = f.subscribe(r.topic, after(r.seen));
        }
        fetch(r, {random() % 5, random() % 500, random() % 2 == 0});
      }
    }
    for (Reader& r : readers) {
      while (fetch(r, kAnyRoom)) {
      }
      std::vector<std::uint64_t> expected;
      for (const std::uint64_t n : published[r.topic]) {
        if (n > r.from) expected.push_back(n);
      }
      REQUIRE(r.covered == expected);
    }
  }
}

TEST_CASE("hub: many threads publish, come, fetch and go, and nobody is forgotten") {
  HubLimits limits;
  limits.ring_messages = 64;
  HubFixture f(limits);
  const std::size_t each = scaled(3'000, 400);
  std::atomic<int> publishing = 3;
  std::latch joined(4);  // before anything is published
  std::vector<std::jthread> threads;
  for (int p = 0; p < 3; ++p) {
    threads.emplace_back([&, p] {
      joined.wait();
      Hub::Turn turn;
      for (std::size_t i = 0; i < each; ++i) {
        // Held up: somebody's fetch lets it go on, and nobody but this thread tries again.
        while (f.hub.publish("t", "", fmt::format("{} {}", p, i), conn(7), turn).held) {
          std::this_thread::yield();
        }
      }
      --publishing;
    });
  }
  std::array<std::size_t, 4> bad{}, delivered{};
  for (std::size_t r = 0; r < bad.size(); ++r) {
    threads.emplace_back([&, r] {
      const bool blocks = r == 0;
      std::mt19937_64 random(seed() + r);
      Hub::Subscription s;
      std::uint64_t cursor = 0;
      const auto join = [&] {
        const Hub::Join from = {{From::after, cursor}, false, blocks};
        if (f.hub.subscribe("t", conn(static_cast<std::uint32_t>(r)), from, s) != Refusal::none) {
          ++bad[r];
        }
      };
      join();
      joined.count_down();
      std::array<std::int64_t, 3> last = {-1, -1, -1};
      for (bool over = false; !over;) {
        over = publishing == 0;
        const Hub::News news = s.fetch({32, 1'000'000, true});
        over = over && !news.more;
        if (news.gap && blocks) ++bad[r];
        if (news.gap) cursor = news.gap->last;
        for (const MessagePtr& message : news.messages) {
          if (message->number <= cursor) ++bad[r];
          cursor = message->number;
          ++delivered[r];
          const auto p = static_cast<std::size_t>(message->data[0] - '0');
          const std::int64_t i = std::stoll(message->data.substr(2));
          if (i <= last[p]) ++bad[r];  // order of one publisher
          last[p] = i;
          if (f.hub.frame(message, Transport::json)->empty()) ++bad[r];
        }
        if (!blocks && random() % 8 == 0) join();
      }
    });
  }
  threads.clear();
  for (const std::size_t b : bad) CHECK(b == 0);
  CHECK(delivered[0] == 3 * each);  // the blocking one has got everything
  CHECK(f.hub.totals().published == 3 * each);
  CHECK(f.hub.totals().subscriptions == 0);
}

}  // namespace
}  // namespace echolab::test
