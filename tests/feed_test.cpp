// The feed between hub and connection: when it fetches, when the policy acts, and that nothing is
// lost undeclared, whatever the client does.

#include "patterns/feed.hpp"

#include <fmt/format.h>

#include <random>
#include <set>

#include "tests/catch.hpp"
#include "tests/hub_doubles.hpp"
#include "tests/world.hpp"

namespace echolab::test {
namespace {

using namespace patterns;
using From = Hub::Cursor::From;

const Time kFeedStart = Time{} + 1h;
constexpr std::size_t kMessage = 16 * 1024;  // bytes; eight of them close the window

// A connection whose client takes bytes when the test says so.
class Client final : public Feed::Sink {
 public:
  [[nodiscard]] std::size_t queued() const override { return queued_; }
  void message(const MessagePtr& message) override {
    told += fmt::format("{} ", message->number);
    covered.push_back(message->number);
    last = message->number;
    queued_ += message->size();
  }
  void gap(const Gap& gap) override {
    told += fmt::format("g{}-{} ", gap.first, gap.last);
    reasons.insert(gap.reason);
    gaps.push_back(gap);
    last = gap.last;
    queued_ += 10;
  }
  void take_all() { queued_ = 0; }
  void take(std::size_t n) { queued_ -= std::min(n, queued_); }
  std::string take_told() { return std::exchange(told, {}); }

  std::string told;
  std::vector<std::uint64_t> covered;
  std::vector<Gap> gaps;
  std::set<std::string> reasons;
  std::uint64_t last = 0;

 private:
  std::size_t queued_ = 0;
};

struct FeedFixture {
  explicit FeedFixture(HubLimits limits = {}) : hub(poster, limits, kEpoch) {}

  Hub::Published publish(std::size_t size = kMessage - 1, std::string_view key = "") {
    Hub::Turn turn;
    return hub.publish("t", key, std::string(size - key.size(), 'x'), conn(99), turn);
  }
  void publish_many(int n) {
    for (int i = 0; i < n; ++i) REQUIRE(publish().number > 0);
  }
  Hub::Subscription subscribe(Policy policy, Hub::Cursor from) {
    Hub::Subscription subscription;
    const Hub::Join join = {from, false, policy == Policy::block_publisher};
    REQUIRE(hub.subscribe("t", conn(1), join, subscription) == Hub::Refusal::none);
    return subscription;
  }
  Feed feed(Policy policy, Hub::Cursor from = {}) {
    return Feed(subscribe(policy, from), policy, limits, totals);
  }
  bool rung() { return !poster.take().empty(); }

  RecordingPoster poster;
  Hub hub;
  ConsumerLimits limits{4, 1024 * 1024, 10s};
  ConsumerTotals totals;
  Client client;
};

TEST_CASE("feed: a client that keeps up gets everything at once") {
  FeedFixture f;
  Feed feed = f.feed(Policy::drop_oldest);
  CHECK(feed.pump(f.client, kFeedStart) == Feed::State::quiet);
  for (int i = 0; i < 20; ++i) {
    f.publish();
    CHECK(f.rung());
    CHECK(feed.pump(f.client, kFeedStart) == Feed::State::quiet);
    f.client.take_all();
  }
  CHECK(f.client.covered.size() == 20);
  CHECK(f.client.gaps.empty());
  CHECK(feed.deadline() == kNever);
  CHECK(f.totals.queued_messages == 0);
}

TEST_CASE("feed: a queue of no messages holds one") {
  for (const Policy policy : {Policy::drop_oldest, Policy::drop_newest, Policy::conflate,
                              Policy::disconnect, Policy::block_publisher}) {
    FeedFixture f;
    f.limits.messages = 0;
    Feed feed = f.feed(policy);
    f.publish_many(3);
    CHECK(feed.pump(f.client, kFeedStart) == Feed::State::quiet);
    CHECK(f.client.covered.size() == 3);
  }
}

TEST_CASE("feed: a burst that one callback cannot write is not held against the client") {
  for (const Policy policy : {Policy::drop_oldest, Policy::drop_newest, Policy::conflate,
                              Policy::disconnect, Policy::block_publisher}) {
    FeedFixture f;
    Feed feed = f.feed(policy);
    feed.pump(f.client, kFeedStart);
    f.publish_many(40);  // five windows and ten queues
    int calls = 0;
    while (feed.pump(f.client, kFeedStart) == Feed::State::waiting) {
      CHECK(f.client.queued() >= kSendWindow);
      CHECK(f.client.queued() <= kSendWindow + kMessage);
      f.client.take_all();
      REQUIRE(++calls < 20);
    }
    CHECK(f.client.covered.size() == 40);
    CHECK(f.client.gaps.empty());
  }
}

TEST_CASE("feed: history waits in the ring, however slow the client") {
  FeedFixture f;
  f.publish_many(40);
  Feed feed = f.feed(Policy::drop_oldest, {From::earliest, 0});
  CHECK(feed.pump(f.client, kFeedStart) == Feed::State::waiting);
  for (int i = 0; i < 5; ++i) CHECK(feed.pump(f.client, kFeedStart) == Feed::State::waiting);
  int calls = 0;
  while (f.client.take_all(), feed.pump(f.client, kFeedStart) == Feed::State::waiting) {
    REQUIRE(++calls < 20);
  }
  CHECK(f.client.covered.size() == 40);
  CHECK(f.client.gaps.empty());
}

// Fills the window with messages 1 to 8, then publishes 9 to 20 with a pump at each.
template <class Each>
void fall_behind(FeedFixture& f, Feed& feed, Each each) {
  feed.pump(f.client, kFeedStart);
  f.publish_many(8);
  feed.pump(f.client, kFeedStart);
  REQUIRE(f.client.queued() == kSendWindow);
  for (int i = 0; i < 12; ++i) {
    f.publish();
    f.rung();
    each(feed.pump(f.client, kFeedStart));
  }
  CHECK(f.client.take_told() == "1 2 3 4 5 6 7 8 ");
}

TEST_CASE("feed: what comes while the client is behind meets the policy") {
  FeedFixture f;
  const auto waits = [](Feed::State state) { CHECK(state == Feed::State::waiting); };
  SECTION("drop-oldest") {
    Feed feed = f.feed(Policy::drop_oldest);
    fall_behind(f, feed, waits);
    CHECK(f.totals.queued_messages == 4);
    CHECK(f.totals.queued_bytes == 4 * kMessage);
    CHECK(feed.deadline() == kFeedStart + 10s);
    f.client.take_all();
    CHECK(feed.pump(f.client, kFeedStart) == Feed::State::quiet);
    CHECK(f.client.told == "g9-16 17 18 19 20 ");
    CHECK(feed.deadline() == kNever);
  }
  SECTION("drop-newest") {
    Feed feed = f.feed(Policy::drop_newest);
    fall_behind(f, feed, waits);
    f.client.take_all();
    CHECK(feed.pump(f.client, kFeedStart) == Feed::State::quiet);
    CHECK(f.client.told == "9 10 11 12 g13-20 ");
  }
  SECTION("disconnect") {
    Feed feed = f.feed(Policy::disconnect);
    int n = 0;
    fall_behind(f, feed, [&](Feed::State state) {
      CHECK(state == (++n <= 4 ? Feed::State::waiting : Feed::State::overrun));
    });
    CHECK(f.totals.disconnected[3] == 1);
  }
  SECTION("the deadline") {
    Feed feed = f.feed(Policy::drop_newest);
    fall_behind(f, feed, waits);
    CHECK(feed.pump(f.client, kFeedStart + 9s) == Feed::State::waiting);
    CHECK(feed.pump(f.client, feed.deadline()) == Feed::State::overrun);
    CHECK(f.totals.disconnected[1] == 1);
  }
}

TEST_CASE("feed: conflate sends the latest of each key to a client that was behind") {
  FeedFixture f;
  Feed feed = f.feed(Policy::conflate);
  feed.pump(f.client, kFeedStart);
  f.publish_many(8);
  feed.pump(f.client, kFeedStart);
  f.client.take_told();
  for (int i = 0; i < 12; ++i) {
    f.publish(1000, i % 2 == 0 ? "even" : "odd");
    CHECK(feed.pump(f.client, kFeedStart) == Feed::State::waiting);
  }
  f.client.take_all();
  CHECK(feed.pump(f.client, kFeedStart) == Feed::State::quiet);
  CHECK(f.client.told == "g9-18 19 20 ");
  CHECK(f.totals.conflated == 10);
}

TEST_CASE("feed: block-publisher holds its topic up until the client has taken what is queued") {
  FeedFixture f;
  Feed feed = f.feed(Policy::block_publisher);
  feed.pump(f.client, kFeedStart);
  f.publish_many(8);
  feed.pump(f.client, kFeedStart);
  int published = 8;
  Hub::Turn turn;
  while (!f.hub.publish("t", "", "x", conn(7), turn).held) {
    feed.pump(f.client, kFeedStart);
    REQUIRE(++published < 20);
  }
  CHECK(published == 13);  // the window, the queue of four, and the one that made it full
  CHECK(f.totals.blocked == 1);
  f.rung();
  CHECK(feed.pump(f.client, kFeedStart + 1h) == Feed::State::waiting);  // it is not disconnected
  f.client.take_all();
  CHECK(feed.pump(f.client, kFeedStart) == Feed::State::quiet);
  CHECK(f.rung());
  CHECK(f.hub.publish("t", "", "x", conn(7), turn).number == 14);
  CHECK(f.client.gaps.empty());
  CHECK(f.client.covered.size() == 13);
}

TEST_CASE("feed: a blocking client that goes lets its publishers go on") {
  FeedFixture f;
  Hub::Turn turn;
  {
    Feed feed = f.feed(Policy::block_publisher);
    feed.pump(f.client, kFeedStart);
    while (!f.hub.publish("t", "", std::string(kMessage, 'x'), conn(7), turn).held) {
      feed.pump(f.client, kFeedStart);
    }
    f.rung();
  }
  CHECK(f.rung());
  CHECK(!f.hub.publish("t", "", "x", conn(7), turn).held);
}

TEST_CASE("feed: random clients: messages and gaps cover everything published") {
  for (const Policy policy : {Policy::drop_oldest, Policy::drop_newest, Policy::conflate,
                              Policy::disconnect, Policy::block_publisher}) {
    for (std::uint64_t round = 0; round < scaled(100, 15); ++round) {
      const std::uint64_t s = seed() + round;
      INFO(name_of(policy) << ", seed " << s);
      std::mt19937_64 random(s);
      HubLimits limits;
      limits.ring_messages = 1 + random() % 30;
      FeedFixture f(limits);
      f.limits = {1 + random() % 8, 1 + random() % 100'000, 10s};
      std::uint64_t published = 0;
      std::optional<Feed> feed;
      feed.emplace(f.subscribe(policy, {}), policy, f.limits, f.totals);
      // A backend: pumps when the hub rings, when there is room, and at deadlines.
      Feed::State state = feed->pump(f.client, kFeedStart);
      Time now = kFeedStart;
      const auto pump = [&] {
        state = feed->pump(f.client, now);
        if (state != Feed::State::overrun) return;
        // Disconnected: the client comes back with the last id it has seen.
        f.client.take_all();
        feed.emplace(f.subscribe(policy, {From::after, f.client.last}), policy, f.limits, f.totals);
        state = feed->pump(f.client, now);
      };
      for (int step = 0; step < 400; ++step) {
        now += std::chrono::milliseconds(random() % 500);
        if (now >= feed->deadline()) pump();
        if (random() % 3 > 0) {
          const std::string key = random() % 2 == 0 ? "" : std::string(1, 'a' + random() % 4);
          const auto p = f.publish(10 + random() % 30'000, key);
          if (!p.held) published = p.number;
          if (f.rung()) pump();
        } else {
          f.client.take(random() % 100'000);
          if (f.client.queued() <= 64 * 1024 && state == Feed::State::waiting) pump();
        }
      }
      while (state == Feed::State::waiting) {
        f.client.take_all();
        pump();
      }
      std::vector<std::uint64_t> covered = f.client.covered;
      for (const Gap& gap : f.client.gaps) {
        for (std::uint64_t n = gap.first; n <= gap.last; ++n) covered.push_back(n);
      }
      std::sort(covered.begin(), covered.end());
      std::vector<std::uint64_t> expected(published);
      for (std::uint64_t n = 1; n <= published; ++n) expected[n - 1] = n;
      REQUIRE(covered == expected);
      REQUIRE(std::is_sorted(f.client.covered.begin(), f.client.covered.end()));
      if (policy == Policy::block_publisher) REQUIRE(f.client.gaps.empty());
      REQUIRE(f.totals.queued_messages == 0);
    }
  }
}

}  // namespace
}  // namespace echolab::test
