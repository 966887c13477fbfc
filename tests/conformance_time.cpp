// Deadlines: never early, once per setting, the last setting counts.
#include <atomic>
#include <mutex>

#include "tests/sim_backend.hpp"
#include "tests/world.hpp"

namespace echolab::test {
namespace {

// A session's callbacks may run in other threads than the test's.
class Fired {
 public:
  void add(Time at) {
    const std::scoped_lock lock(mutex_);
    times_.push_back(at);
  }
  [[nodiscard]] std::vector<Time> all() const {
    const std::scoped_lock lock(mutex_);
    return times_;
  }
  [[nodiscard]] std::size_t count() const { return all().size(); }

 private:
  mutable std::mutex mutex_;
  std::vector<Time> times_;
};

CONFORMANCE(deadline_pushes, "a deadline writes to a client that is silent", Over::one_loop) {
  Fired fired;
  auto world = make_world(target);
  const Time start = world->now();
  world->start(serve([&] {
    Handlers h;
    h.open = [](Out& out, ConnId, Time now) { out.wake_at(now + 30ms); };
    h.deadline = [&](Out& out, Time now) {
      fired.add(now);
      out.write(blob_of("tick"));
    };
    return h;
  }));
  auto peer = world->connect();
  CHECK(difference(blob_of("tick"), peer->read(4)) == "");
  CHECK(world->now() - start >= 30ms);
  world->pass(kMoment);
  CHECK(fired.count() == 1);
  if (target.simulated()) CHECK(fired.all()[0] - start == 30ms);
  world->finish();
}

CONFORMANCE(deadline_periodic, "a deadline that sets itself again ticks as often as it should",
            Over::one_loop) {
  constexpr std::size_t kTicks = 10;
  Fired fired;
  auto world = make_world(target);
  const Time start = world->now();
  world->start(serve([&] {
    Handlers h;
    h.open = [](Out& out, ConnId, Time now) { out.wake_at(now + 10ms); };
    h.deadline = [&](Out& out, Time now) {
      fired.add(now);
      out.write(blob_of("."));
      if (fired.count() < kTicks) out.wake_at(now + 10ms);
    };
    return h;
  }));
  auto peer = world->connect();
  CHECK(peer->read(kTicks).size() == kTicks);
  CHECK(world->now() - start >= kTicks * 10ms);
  world->pass(kMoment);
  CHECK(fired.count() == kTicks);
  if (target.simulated()) CHECK(fired.all().back() - start == kTicks * 10ms);
  world->finish();
}

CONFORMANCE(deadline_replaced, "a new deadline replaces the old one earlier or later",
            Over::one_loop) {
  const auto later = GENERATE(false, true);
  CAPTURE(later);
  const Duration first = later ? 60ms : 24h;
  const Duration second = later ? 250ms : 40ms;
  Fired fired;
  Fired set;
  auto world = make_world(target);
  world->start(serve([&] {
    Handlers h;
    h.open = [=](Out& out, ConnId, Time now) { out.wake_at(now + first); };
    h.bytes = [&](Out& out, Input in, Time now) {
      out.forward(in);
      out.wake_at(now + second);
      set.add(now + second);
    };
    h.deadline = [&](Out& out, Time now) {
      fired.add(now);
      out.write(blob_of("x"));
    };
    return h;
  }));
  auto peer = world->connect();
  // On a slow machine the first deadline may come before this byte does: then its x is seen first.
  const Blob got = peer->exchange(blob_of("a"), 2);
  const bool in_time = got[0] == std::byte{'a'};
  CHECK((in_time || later));
  if (!in_time) CHECK(peer->read(1) == blob_of("x"));
  CHECK(set.count() == 1);
  CHECK(fired.count() == (in_time ? 1U : 2U));
  CHECK(fired.all().back() >= set.all().back());
  if (target.simulated()) CHECK(fired.all().back() == set.all().back());
  world->pass(kMoment);
  CHECK(fired.count() == (in_time ? 1U : 2U));
  world->finish();
}

CONFORMANCE(deadline_cancelled, "kNever takes the deadline back", Over::one_loop) {
  Fired fired;
  auto world = make_world(target);
  world->start(serve([&] {
    Handlers h;
    // Set and taken back in one callback, or in a later one, long before it is due.
    h.open = [](Out& out, ConnId, Time now) {
      out.wake_at(now + 1ms);
      out.wake_at(kNever);
    };
    h.bytes = [n = 0](Out& out, Input in, Time now) mutable {
      out.forward(in);
      out.wake_at(n++ % 2 == 0 ? now + 24h : kNever);
    };
    h.deadline = [&](Out&, Time now) { fired.add(now); };
    return h;
  }));
  auto peer = world->connect();
  for (int i = 0; i < 6; ++i) peer->exchange(blob_of("a"), 1);
  world->pass(kMoment);
  CHECK(fired.count() == 0);
  world->finish();
}

CONFORMANCE(deadline_past, "a deadline in the past comes at once", Over::one_loop) {
  auto world = make_world(target);
  world->start(serve([&] {
    Handlers h;
    h.bytes = [](Out& out, Input, Time now) { out.wake_at(now - 1h); };
    h.deadline = [n = 0](Out& out, Time now) mutable {
      out.write(blob_of("x"));
      if (++n % 3 != 0) out.wake_at(now);
    };
    return h;
  }));
  auto peer = world->connect();
  for (int i = 0; i < 20; ++i) CHECK(peer->exchange(blob_of("a"), 3).size() == 3);
  world->finish();
}

CONFORMANCE(deadline_traffic, "traffic neither delays a deadline nor is delayed by it",
            Over::one_loop) {
  Fired fired;
  auto world = make_world(target);
  world->start(serve([&] {
    Handlers h;
    h.open = [](Out& out, ConnId, Time now) { out.wake_at(now + 100ms); };
    h.deadline = [&](Out&, Time now) { fired.add(now); };
    return h;
  }));
  auto peer = world->connect();
  std::size_t round = 0;
  const auto exchange = [&] {
    const Blob request = pattern(++round, 500);
    REQUIRE(difference(request, peer->exchange(request, request.size())) == "");
    if (target.simulated()) world->pass(1ms);
  };
  exchange();                             // the session is open by now
  const Time due = world->now() + 103ms;  // some models count milliseconds
  while (world->now() <= due) exchange();
  // These arrive when it is overdue, one soon after the other: no pause may be needed for it.
  for (int i = 0; i < 8; ++i) exchange();
  CHECK(fired.count() == 1);
  const Blob request = pattern(1, 1 << 20);
  CHECK(difference(request, peer->exchange_all(request)) == "");
  CHECK(fired.count() == 1);
  world->finish();
}

CONFORMANCE(deadline_idle, "an idle timeout that every byte moves on", Over::one_loop) {
  // The usual use: the deadline moves with every request and closes the connection at last.
  std::atomic<Time> last{};
  auto world = make_world(target);
  world->start(serve([&] {
    Handlers h;
    h.open = [](Out& out, ConnId, Time now) { out.wake_at(now + 24h); };
    h.bytes = [&](Out& out, Input in, Time now) {
      last = now;
      out.forward(in);
      // The last request of the test starts with an x, and then the timeout is short.
      out.wake_at(now + (in[0] == std::byte{'x'} ? Duration(50ms) : Duration(24h)));
    };
    h.deadline = [](Out& out, Time) {
      out.write(blob_of("timeout"));
      out.close();
    };
    return h;
  }));
  auto peer = world->connect();
  for (int i = 0; i < 200; ++i) peer->exchange(blob_of("a"), 1);
  peer->send(blob_of("x"));
  CHECK(difference(blob_of("xtimeout"), peer->read_all()) == "");
  CHECK(world->now() - last.load() >= 50ms);
  world->finish();
}

CONFORMANCE(deadline_many, "many deadlines at once", Over::all) {
  const std::size_t n = std::min<std::size_t>(scaled(500, 100), target.capacity());
  std::atomic<int> early = 0;
  std::atomic<unsigned> order = 0;
  auto world = make_world(target);
  const Time start = world->now();
  world->start(serve([&] {
    Handlers h;
    auto due = std::make_shared<Time>();
    h.open = [due, &order](Out& out, ConnId, Time now) {
      *due = now + (order++ * 37 % 100) * 2ms;
      out.wake_at(*due);
    };
    h.deadline = [due, &early](Out& out, Time now) {
      if (now < *due) ++early;
      out.write(blob_of("x"));
    };
    return h;
  }));
  Peers peers = world->connect_many(n);
  for (auto& peer : peers) CHECK(peer->read(1).size() == 1);
  world->pass(kMoment);
  world->finish();
  CHECK(early == 0);
  CHECK(world->watch.deadlines == static_cast<std::int64_t>(n));
  if (target.simulated()) CHECK(world->now() - start < 24h);
}

CONFORMANCE(deadline_with_posts, "deadlines and posts and bytes on the same connections",
            Over::all) {
  // The three sources of wake-ups together; each must make progress of its own.
  constexpr int kEach = 30;
  struct Seen {
    std::atomic<int> posts = 0;
    std::atomic<int> deadlines = 0;
  } seen;
  auto world = make_world(target);
  Backend& backend = world->backend();
  world->start(serve(
      [&] {
        Handlers h;
        auto own = std::make_shared<ConnId>();
        h.open = [own, &backend](Out& out, ConnId id, Time now) {
          *own = id;
          out.wake_at(now + 1ms);
          backend.post({own.get(), 1}, {1, nullptr});
        };
        h.post = [own, &backend, &seen](Out&, const Post& post, Time) {
          ++seen.posts;
          if (post.topic < kEach) backend.post({own.get(), 1}, {post.topic + 1, nullptr});
        };
        h.deadline = [&seen, n = 0](Out& out, Time now) mutable {
          ++seen.deadlines;
          if (++n < kEach) out.wake_at(now + 1ms);
        };
        return h;
      },
      Pushes::yes));
  Peers peers = world->connect_many(4);
  for (std::size_t i = 0; i < 50; ++i) {
    for (auto& peer : peers) {
      REQUIRE(difference(pattern(i, 100), peer->exchange(pattern(i, 100), 100)) == "");
    }
  }
  CHECK(world->eventually([&] { return seen.posts == 4 * kEach && seen.deadlines == 4 * kEach; }));
  world->finish();
}

TEST_CASE("sim - deadlines come in order of time and exactly", "[conformance]") {
  std::vector<std::pair<int, Duration>> fired;  // single-threaded: no lock
  auto world = make_sim_world(seed());
  const Time start = world->now();
  const std::vector<Duration> due = {60ms, 30ms, 90ms, 30ms, 1h, 0ms};
  world->start(serve([&, next = 0]() mutable {
    Handlers h;
    const int own = next++;
    h.open = [&, own](Out& out, ConnId, Time now) {
      out.wake_at(now + due[static_cast<std::size_t>(own)]);
    };
    h.deadline = [&, own](Out&, Time now) { fired.emplace_back(own, now - start); };
    return h;
  }));
  Peers peers = world->connect_many(due.size());
  world->pass(2h);
  REQUIRE(fired.size() == due.size());
  for (std::size_t i = 0; i < fired.size(); ++i) {
    CHECK(fired[i].second == due[static_cast<std::size_t>(fired[i].first)]);
    if (i > 0) CHECK(fired[i].second >= fired[i - 1].second);
  }
  world->finish();
}

}  // namespace
}  // namespace echolab::test
