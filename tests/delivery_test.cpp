// The delivery oracle: publishers (POST, WebSocket) and subscribers (long poll, server-sent events,
// WebSocket) over every backend, connections dropped and taken up again at random, slow readers
// under every policy. Each number of a subscriber's topic must end as delivered, duplicate or
// declared gap; LOST must be zero.
//
// The seed is random, printed, and taken from ECHOLAB_SEED to replay.
#include <cstdlib>
#include <iostream>
#include <random>

#include "patterns/push.hpp"
#include "patterns/topics.hpp"
#include "tests/hub_doubles.hpp"
#include "tests/topic_clients.hpp"
#include "tests/topic_ws_clients.hpp"

namespace echolab::test {
namespace {

using namespace patterns;

class TopicService final : public Service {
 public:
  TopicService(Poster& poster, const HubLimits& hub_limits, const TopicLimits& limits)
      : hub_(poster, hub_limits, kEpoch),
        topics_(hub_, limits),
        push_{hub_, topics_.consumers(), {}, {}, {}, limits.consumer},
        http_{router_, {}, {}} {
    topics_.add_routes(router_);
    add_push_routes(router_, push_);
  }
  std::unique_ptr<Session> accept() override { return make_http_session(http_); }
  [[nodiscard]] bool pushes() const override { return true; }

  [[nodiscard]] const Hub& hub() const { return hub_; }
  [[nodiscard]] const ConsumerTotals& consumers() { return topics_.consumers(); }
  [[nodiscard]] std::size_t websockets() const { return push_.connections; }

 private:
  Hub hub_;
  Topics topics_;
  PushContext push_;
  Router router_;
  HttpContext http_;
};

void run_oracle(World& world, std::uint64_t seed, std::size_t messages) {
  HubLimits hub_limits;
  hub_limits.ring_messages = 64;
  TopicLimits limits;
  limits.consumer = {16, 64 * 1024, 10s};
  auto owned = std::make_unique<TopicService>(world.backend(), hub_limits, limits);
  TopicService& service = *owned;
  world.start(std::move(owned));

  Ledger ledger;
  std::mt19937_64 random(seed);
  std::vector<std::unique_ptr<TopicActor>> publishers;
  std::vector<std::unique_ptr<TopicSubscriber>> subscribers;
  const std::string start = fmt::format("{:08x}-0", kEpoch);
  for (const Policy policy : {Policy::drop_oldest, Policy::drop_newest, Policy::conflate,
                              Policy::disconnect, Policy::block_publisher}) {
    const std::string topic = policy == Policy::block_publisher ? "b" : "a";
    subscribers.push_back(
        std::make_unique<StreamSubscriber>(world, random(), ledger, topic, policy, start));
    subscribers.push_back(
        std::make_unique<PushSubscriber>(world, random(), ledger, topic, policy, start));
  }
  subscribers.push_back(
      std::make_unique<StreamSubscriber>(world, random(), ledger, "*", Policy::drop_oldest, start));
  subscribers.push_back(
      std::make_unique<PushSubscriber>(world, random(), ledger, "*", Policy::drop_oldest, start));
  for (const char* topic : {"a", "b", "*"}) {
    subscribers.push_back(std::make_unique<PollSubscriber>(world, random(), ledger, topic, start));
  }
  const std::vector<std::string> topics{"a", "b"};
  for (const char* name : {"post 1", "post 2"}) {
    publishers.push_back(
        std::make_unique<PostPublisher>(world, random(), ledger, name, topics, messages));
  }
  for (const char* name : {"push 1", "push 2"}) {
    publishers.push_back(
        std::make_unique<PushPublisher>(world, random(), ledger, name, topics, messages));
  }
  std::vector<std::function<bool()>> actors;
  for (auto& s : subscribers) actors.emplace_back([&s] { return s->step(); });
  for (auto& p : publishers) {
    actors.emplace_back([&p, &ledger] {
      if (p->step()) return true;
      if (!p->wrong.empty()) ledger.publisher_done();  // nobody waits for it
      return false;
    });
  }
  world.race(std::move(actors));

  for (const auto& p : publishers) CHECK(p->wrong == "");
  CHECK(ledger.of("*").size() == publishers.size() * messages);
  for (const auto& s : subscribers) s->report(ledger);
  std::size_t resumes = 0;
  for (std::size_t i = 0; i < subscribers.size(); ++i) {
    TopicSubscriber& s = *subscribers[i];
    INFO("subscriber " << i << " of " << s.topic());
    const Account account = s.account();
    CHECK(s.wrong == "");
    CHECK(account.lost == 0);
    CHECK(account.delivered > 0);
    resumes += s.resumes();
  }
  CHECK(resumes > 0);
  // Nobody is left behind.
  subscribers.clear();
  publishers.clear();
  CHECK(world.eventually([&] { return service.hub().totals().subscriptions == 0; }));
  CHECK(world.eventually([&] { return world.watch.destroyed == world.watch.accepted; }));
  CHECK(service.consumers().queued_bytes == 0);
  CHECK(service.websockets() == 0);
  world.finish();
}

CONFORMANCE(delivery, "delivery oracle", Over::all) {
  const bool given = std::getenv("ECHOLAB_SEED") != nullptr;
  const std::uint64_t s = given ? seed() : std::random_device()();
  std::cout << "ECHOLAB_SEED=" << s << " replays this\n";
  CAPTURE(s);
  auto world = target.simulated() ? make_sim_world(s) : make_world(target);
  run_oracle(*world, s, scaled(60, 40));
}

TEST_CASE("sim - delivery oracle over many seeds", "[conformance]") {
  for (std::uint64_t s = 1; s <= scaled(8, 2); ++s) {
    CAPTURE(s);
    auto world = make_sim_world(s);
    run_oracle(*world, s, 30);
  }
}

}  // namespace
}  // namespace echolab::test
