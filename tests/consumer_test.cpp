// The five slow-consumer policies: each by example, and all against a simple model over random
// sequences. Whatever happens, messages and gaps that come out cover what went in.

#include "patterns/consumer.hpp"

#include <fmt/format.h>

#include <deque>
#include <random>

#include "tests/catch.hpp"
#include "tests/world.hpp"

namespace echolab::test {
namespace {

using namespace patterns;

const Time kStart = Time{} + 1h;

MessagePtr message(std::uint64_t number, std::size_t size, std::string key = "") {
  // Message::size counts the topic and the key, too.
  const std::size_t data = size - 1 - key.size();
  return std::make_shared<const Message>(number, "t", std::move(key), std::string(data, 'x'));
}

// "g1-2 3 g4-4": gaps and messages in the order in which they come out.
std::string drain(Consumer& consumer) {
  std::string all;
  Consumer::Item item;
  while (consumer.pop(item)) {
    if (item.gap) all += fmt::format("g{}-{} ", item.gap->first, item.gap->last);
    if (item.message) all += fmt::format("{} ", item.message->number);
  }
  if (!all.empty()) all.pop_back();
  return all;
}

void push(Consumer& consumer, std::uint64_t first, std::uint64_t last, std::size_t size = 10) {
  for (std::uint64_t n = first; n <= last; ++n) consumer.push(message(n, size), kStart);
}

constexpr Policy kAll[] = {Policy::drop_oldest, Policy::drop_newest, Policy::conflate,
                           Policy::disconnect, Policy::block_publisher};

TEST_CASE("consumer: policies have the names that clients send") {
  const char* names[] = {"drop-oldest", "drop-newest", "conflate", "disconnect", "block-publisher"};
  for (std::size_t i = 0; i < kPolicies; ++i) {
    CHECK(std::string(name_of(kAll[i])) == names[i]);
    CHECK(parse_policy(names[i]) == kAll[i]);
  }
  CHECK(!parse_policy("unbounded"));
  CHECK(!parse_policy(""));
}

TEST_CASE("consumer: within the bound every policy hands out everything in order") {
  const ConsumerLimits limits{3, 30, 10s};
  for (const Policy policy : kAll) {
    ConsumerTotals totals;
    Consumer consumer(policy, limits, totals);
    CHECK(consumer.empty());
    push(consumer, 1, 3);
    CHECK(consumer.messages() == 3);
    CHECK(consumer.bytes() == 30);
    CHECK(consumer.deadline() == kNever);
    CHECK(!consumer.overrun(kStart + 1h));
    CHECK(drain(consumer) == "1 2 3");
    CHECK(consumer.empty());
  }
}

TEST_CASE("consumer: drop-oldest makes room at the front") {
  const ConsumerLimits limits{3, 1000, 10s};
  ConsumerTotals totals;
  Consumer consumer(Policy::drop_oldest, limits, totals);
  push(consumer, 1, 5);
  CHECK(totals.dropped[0] == 2);
  Consumer::Item item;
  REQUIRE(consumer.pop(item));
  CHECK(item.gap == Gap{1, 2, item.gap->reason});
  CHECK(std::string(item.gap->reason) == "drop-oldest");
  CHECK(item.message->number == 3);
  CHECK(drain(consumer) == "4 5");
}

TEST_CASE("consumer: drop-newest lets nothing in that does not fit") {
  const ConsumerLimits limits{3, 1000, 10s};
  ConsumerTotals totals;
  Consumer consumer(Policy::drop_newest, limits, totals);
  push(consumer, 1, 5);
  CHECK(totals.dropped[1] == 2);
  Consumer::Item item;
  REQUIRE(consumer.pop(item));
  CHECK(item.message->number == 1);
  push(consumer, 6, 6);
  CHECK(drain(consumer) == "2 3 g4-5 6");
  push(consumer, 7, 10);
  CHECK(drain(consumer) == "7 8 9 g10-10");
}

TEST_CASE("consumer: conflate keeps the latest of each key, whatever the bound") {
  const ConsumerLimits limits{3, 1000, 10s};
  ConsumerTotals totals;
  Consumer consumer(Policy::conflate, limits, totals);
  consumer.push(message(1, 10, "a"), kStart);
  consumer.push(message(2, 10, "b"), kStart);
  consumer.push(message(3, 10, "a"), kStart);
  CHECK(totals.conflated == 1);
  CHECK(consumer.messages() == 2);
  consumer.push(message(4, 10, "c"), kStart);
  consumer.push(message(5, 10, "b"), kStart);
  CHECK(drain(consumer) == "g1-2 3 4 5");
  CHECK(totals.dropped[2] == 0);

  SECTION("only distinct keys: the oldest goes") {
    consumer.push(message(6, 10, "a"), kStart);
    consumer.push(message(7, 10, "b"), kStart);
    consumer.push(message(8, 10, "c"), kStart);
    consumer.push(message(9, 10, "d"), kStart);
    CHECK(totals.dropped[2] == 1);
    CHECK(drain(consumer) == "g6-6 7 8 9");
  }
  SECTION("no key is not a key") {
    push(consumer, 6, 8);
    CHECK(drain(consumer) == "6 7 8");
  }
  SECTION("a gap in the middle") {
    push(consumer, 6, 6);
    consumer.push(message(7, 10, "a"), kStart);
    push(consumer, 8, 8);
    consumer.push(message(9, 10, "a"), kStart);
    CHECK(drain(consumer) == "6 g7-7 8 9");
  }
}

TEST_CASE("consumer: disconnect is over at the first message that does not fit") {
  const ConsumerLimits limits{3, 1000, 10s};
  ConsumerTotals totals;
  Consumer consumer(Policy::disconnect, limits, totals);
  push(consumer, 1, 3);
  CHECK(!consumer.overrun(kStart));
  push(consumer, 4, 4);
  CHECK(consumer.overrun(kStart));
  CHECK(consumer.overrun(kStart));
  CHECK(totals.disconnected[3] == 1);  // counted once
  CHECK(drain(consumer) == "1 2 3");
  push(consumer, 5, 5);  // 4 has not come: neither may 5
  CHECK(consumer.empty());
}

TEST_CASE("consumer: block-publisher tells how much may be fetched") {
  const ConsumerLimits limits{3, 30, 10s};
  ConsumerTotals totals;
  Consumer consumer(Policy::block_publisher, limits, totals);
  CHECK(consumer.room().messages == 3);
  CHECK(consumer.room().one);
  push(consumer, 1, 2);
  CHECK(consumer.room().messages == 1);
  CHECK(consumer.room().bytes == 10);
  CHECK(!consumer.room().one);
  push(consumer, 3, 3);
  CHECK(consumer.room().messages == 0);
  CHECK(consumer.room().bytes == 0);
  CHECK(consumer.deadline() == kNever);
  CHECK(!consumer.overrun(kStart + 1h));
  CHECK(drain(consumer) == "1 2 3");
}

TEST_CASE("consumer: bytes bound the queue, but one message always fits") {
  const ConsumerLimits limits{100, 50, 10s};
  for (const Policy policy : kAll) {
    ConsumerTotals totals;
    Consumer consumer(policy, limits, totals);
    push(consumer, 1, 1, 500);
    CHECK(!consumer.overrun(kStart));
    CHECK(consumer.bytes() == 500);
    CHECK(drain(consumer) == "1");
  }
  ConsumerTotals totals;
  Consumer consumer(Policy::drop_oldest, limits, totals);
  push(consumer, 1, 5);
  push(consumer, 6, 6, 30);
  CHECK(consumer.bytes() == 50);
  push(consumer, 7, 7, 500);
  CHECK(drain(consumer) == "g1-6 7");
}

TEST_CASE("consumer: who stays at its bound and takes nothing is disconnected at the deadline") {
  const ConsumerLimits limits{2, 1000, 10s};
  for (const Policy policy : {Policy::drop_oldest, Policy::drop_newest, Policy::conflate}) {
    ConsumerTotals totals;
    Consumer consumer(policy, limits, totals);
    push(consumer, 1, 2);
    CHECK(consumer.deadline() == kNever);  // full, but nothing was lost yet
    push(consumer, 3, 3);
    CHECK(consumer.deadline() == kStart + 10s);
    consumer.push(message(4, 10), kStart + 5s);
    CHECK(consumer.deadline() == kStart + 10s);
    CHECK(!consumer.overrun(kStart + 10s - 1ns));
    Consumer::Item item;
    REQUIRE(consumer.pop(item));  // it takes something: the deadline starts anew
    CHECK(consumer.deadline() == kNever);
    consumer.push(message(5, 10), kStart + 7s);
    consumer.push(message(6, 10), kStart + 8s);
    CHECK(consumer.deadline() == kStart + 18s);
    CHECK(totals.disconnected[static_cast<std::size_t>(policy)] == 0);
    CHECK(consumer.overrun(kStart + 18s));
    CHECK(totals.disconnected[static_cast<std::size_t>(policy)] == 1);
  }
}

TEST_CASE("consumer: gaps from the hub come before what follows them, and join with its own") {
  const ConsumerLimits limits{2, 1000, 10s};
  ConsumerTotals totals;
  Consumer consumer(Policy::drop_oldest, limits, totals);
  consumer.push({1, 4, "evicted"});
  CHECK(!consumer.empty());
  push(consumer, 5, 7);
  Consumer::Item item;
  REQUIRE(consumer.pop(item));
  CHECK(item.gap == Gap{1, 5, item.gap->reason});
  CHECK(std::string(item.gap->reason) == "evicted");
  CHECK(drain(consumer) == "7");
  consumer.push({0, 9, "restarted"});
  push(consumer, 10, 12);
  REQUIRE(consumer.pop(item));
  CHECK(item.gap == Gap{0, 10, item.gap->reason});
  CHECK(std::string(item.gap->reason) == "restarted");
  CHECK(drain(consumer) == "12");
  consumer.push({13, 13, "evicted"});
  CHECK(drain(consumer) == "g13-13");  // also with nothing behind it
}

TEST_CASE("consumer: gauges follow report() and go back to nothing") {
  const ConsumerLimits limits{10, 1000, 10s};
  ConsumerTotals totals;
  {
    Consumer one(Policy::drop_oldest, limits, totals);
    Consumer two(Policy::drop_oldest, limits, totals);
    push(one, 1, 3);
    push(two, 1, 2);
    CHECK(totals.queued_messages == 0);
    one.report();
    two.report();
    CHECK(totals.queued_messages == 5);
    CHECK(totals.queued_bytes == 50);
    CHECK(drain(one) == "1 2 3");
    one.report();
    CHECK(totals.queued_messages == 2);
    CHECK(totals.queued_bytes == 20);
  }
  CHECK(totals.queued_messages == 0);
  CHECK(totals.queued_bytes == 0);
}

// ---- the model --------------------------------------------------------------------------------

// What the policies say, written as plainly as possible: a list of what is waiting.
struct Model {
  Policy policy;
  ConsumerLimits limits;
  std::deque<MessagePtr> waiting;
  bool ended = false;

  [[nodiscard]] std::size_t bytes() const {
    std::size_t sum = 0;
    for (const auto& m : waiting) sum += m->size();
    return sum;
  }
  [[nodiscard]] bool fits(const MessagePtr& m) const {
    return waiting.empty() ||
           (waiting.size() + 1 <= limits.messages && bytes() + m->size() <= limits.bytes);
  }
  void push(const MessagePtr& m) {
    if (ended) return;
    if (policy == Policy::conflate && !m->key.empty()) {
      std::erase_if(waiting, [&](const MessagePtr& old) { return old->key == m->key; });
    }
    if (policy == Policy::drop_newest && !fits(m)) return;
    if (policy == Policy::disconnect && !fits(m)) ended = true;
    if (ended) return;
    while (policy != Policy::block_publisher && !fits(m)) waiting.pop_front();
    waiting.push_back(m);
  }
};

TEST_CASE("consumer: random sequences against the model, and nothing is lost undeclared") {
  const std::uint64_t first_seed = seed();
  const std::size_t rounds = scaled(400, 60);
  for (const Policy policy : kAll) {
    for (std::uint64_t round = 0; round < rounds; ++round) {
      INFO(name_of(policy) << ", seed " << first_seed + round);
      std::mt19937_64 random(first_seed + round);
      const auto below = [&](std::uint64_t n) { return random() % n; };
      const ConsumerLimits limits{1 + below(8), 1 + below(200), 1h};
      ConsumerTotals totals;
      Consumer consumer(policy, limits, totals);
      Model model{policy, limits, {}, false};
      std::uint64_t number = 0, pushed = 0, popped = 0;
      std::vector<std::uint64_t> sent;     // went in as messages or as the hub's gaps
      std::vector<std::uint64_t> covered;  // came out
      const auto take_one = [&] {
        Consumer::Item item;
        if (!consumer.pop(item)) return false;
        if (item.gap) {
          REQUIRE(item.gap->first <= item.gap->last);
          for (const std::uint64_t n : sent) {
            if (n >= item.gap->first && n <= item.gap->last) covered.push_back(n);
          }
        }
        if (item.message) {
          REQUIRE(!model.waiting.empty());
          REQUIRE(item.message == model.waiting.front());
          model.waiting.pop_front();
          covered.push_back(item.message->number);
          ++popped;
        } else {
          REQUIRE(model.waiting.empty());
        }
        return true;
      };
      for (std::size_t step = 0; step < 120 && !model.ended; ++step) {
        const std::uint64_t what = below(10);
        if (what < 6) {
          number += 1 + below(3);  // numbers of other topics lie between
          const MessagePtr m =
              message(number, 2 + below(60), below(3) == 0 ? "" : std::string(1, 'a' + below(5)));
          if (policy == Policy::block_publisher && !model.fits(m)) continue;  // is not fetched
          model.push(m);
          consumer.push(m, kStart);
          if (!model.ended) sent.push_back(number);
          ++pushed;
        } else if (what == 6) {
          sent.push_back(number + 1);
          sent.push_back(number + 2);
          consumer.push(Gap{number + 1, number + 2, "evicted"});
          number += 2;
        } else {
          take_one();
        }
        REQUIRE(consumer.messages() == model.waiting.size());
        REQUIRE(consumer.bytes() == model.bytes());
        REQUIRE((consumer.messages() <= 1 ||
                 (consumer.messages() <= limits.messages && consumer.bytes() <= limits.bytes)));
        REQUIRE(consumer.overrun(kStart) == model.ended);
      }
      while (take_one()) {
      }
      CHECK(consumer.empty());
      // Each exactly once, and in order.
      REQUIRE(covered == sent);
      const auto at = static_cast<std::size_t>(policy);
      const std::uint64_t refused = model.ended ? 1 : 0;
      CHECK(pushed == popped + totals.dropped[at] + totals.conflated + refused);
    }
  }
}

}  // namespace
}  // namespace echolab::test
