// Stopping: before, during and after the work, with and without sessions that cooperate.
#include <algorithm>
#include <atomic>
#include <mutex>

#include "tests/world.hpp"

namespace echolab::test {
namespace {

CONFORMANCE(stop_idle, "stop ends idle connections cleanly and long before the grace is over",
            Over::all) {
  const auto world = make_world(target);
  world->start(serve_echo());
  Peers peers = world->connect_many(20);
  for (auto& peer : peers) CHECK(peer->exchange(pattern(1, 100), 100).size() == 100);
  world->backend().stop(24h);
  for (auto& peer : peers) CHECK(peer->read_all().empty());
  peers.clear();
  CHECK(world->eventually([&] { return world->run_returned(); }));
  world->finish();
  CHECK(world->watch.failed == 0);
}

CONFORMANCE(stop_nothing, "stop without connections and stop before run", Over::all) {
  SECTION("before run") {
    auto world = make_world(target);
    if (!target.simulated()) CHECK(world->backend().port() != 0);
    world->backend().stop(24h);
    world->start(serve_echo());
    CHECK(world->eventually([&] { return world->run_returned(); }));
    world->finish();
  }
  SECTION("at once") {
    auto world = make_world(target);
    world->start(serve_echo());
    world->backend().stop(24h);
    CHECK(world->eventually([&] { return world->run_returned(); }));
    world->finish();
  }
  SECTION("never started") {
    auto world = make_world(target);
  }
  SECTION("many times over") {
    for (int i = 0; i < 20; ++i) {
      auto world = make_world(target);
      world->start(serve_echo());
      auto peer = world->connect();
      if (i % 2 == 0) peer->exchange(pattern(1, 10), 10);
      if (i % 3 == 0) peer.reset();
      world->backend().stop(i % 4 == 0 ? Duration(0) : Duration(1s));
      peer.reset();
      world->finish();
    }
  }
}

CONFORMANCE(stop_twice, "the first stop counts", Over::one_loop) {
  std::atomic<bool> drained = false;
  auto world = make_world(target);
  world->start(serve([&] {
    Handlers h;
    h.drain = [&](Out&, Time) { drained = true; };
    return h;
  }));
  auto peer = world->connect();
  CHECK(peer->exchange(pattern(1, 10), 10).size() == 10);
  world->backend().stop(24h);
  REQUIRE(world->eventually([&] { return drained.load(); }));
  world->backend().stop(Duration::zero());
  world->pass(kMoment);
  // Still served: the second stop did not shorten the grace period.
  CHECK(peer->exchange(pattern(2, 1000), 1000).size() == 1000);
  CHECK(peer->exchange_all({}).empty());
  CHECK(world->eventually([&] { return world->run_returned(); }));
  world->finish();
}

CONFORMANCE(stop_refuses, "after a stop nobody is served any more", Over::all) {
  auto world = make_world(target);
  world->start(serve_echo());
  CHECK(world->connect()->exchange_all(pattern(1, 10)).size() == 10);
  world->backend().stop(24h);
  REQUIRE(world->eventually([&] { return world->run_returned(); }));
  // Refused, or ended at once if the listening socket lives as long as the backend does.
  auto peer = world->try_connect();
  if (peer) {
    peer->send_some(pattern(1, 10));
    CHECK(peer->read_some(10).empty());
  }
  world->finish();
  CHECK(world->watch.accepted == 1);
}

CONFORMANCE(stop_forgets_nobody, "whoever connects while it stops is ended", Over::all) {
  for (int round = 0; round < 5; ++round) {
    auto world = make_world(target);
    world->start(serve_echo());
    Peers peers;
    std::atomic<int> left = 40;
    world->race({[&] {
                   if (auto peer = world->try_connect()) peers.push_back(std::move(peer));
                   return --left > 0;
                 },
                 [&] {
                   if (left > 20) return true;
                   world->backend().stop(0ms);
                   return false;
                 }});
    REQUIRE(world->eventually([&] { return world->run_returned(); }));
    world->finish();
    for (auto& peer : peers) {
      // Linux can forget a connection whose handshake ends as the listener is closed, and tells the
      // peer only when it hears from it.
      peer->send_some(pattern(1, 1));
      if (peer->state() == Peer::State::open) peer->read_end();
    }
  }
}

CONFORMANCE(drain_says_goodbye, "on_drain may write and its bytes come last", Over::all) {
  auto world = make_world(target);
  world->start(serve([] {
    Handlers h;
    h.drain = [](Out& out, Time) {
      out.write(blob_of("good"));
      out.share(frame_of(blob_of("bye")));
      out.close();
    };
    return h;
  }));
  Peers peers = world->connect_many(20);
  for (auto& peer : peers) CHECK(peer->exchange(pattern(1, 100), 100).size() == 100);
  world->backend().stop(kPatience);
  for (auto& peer : peers) CHECK(difference(blob_of("goodbye"), peer->read_all()) == "");
  peers.clear();
  world->finish();
  CHECK(world->watch.failed == 0);
}

CONFORMANCE(drain_under_load, "draining under load loses no byte of a reply and resets nobody",
            Over::all) {
  WorldOptions options;
  options.limits.linger = kPatience;  // clients go on sending after the server has closed
  auto world = make_world(target, options);
  world->start(serve_echo());
  Peers peers = world->connect_many(24);
  const Blob stream = pattern(1, 8 << 20);
  std::vector<std::size_t> sent(peers.size());
  std::vector<Blob> got(peers.size());
  bool stopped = false;
  std::size_t open = peers.size();
  for (std::size_t turn = 0; open > 0; ++turn) {
    bool moved = false;
    for (std::size_t i = 0; i < peers.size(); ++i) {
      Peer& peer = *peers[i];
      if (peer.state() != Peer::State::open) continue;
      const Bytes rest = Bytes(stream).subspan(sent[i]);
      const std::size_t n = peer.send_some(rest.first(std::min(rest.size(), 1 + turn % 4096)));
      sent[i] += n;
      const Blob some = peer.read_some(64 * 1024);
      got[i].insert(got[i].end(), some.begin(), some.end());
      moved = moved || n > 0 || !some.empty();
      if (peer.state() == Peer::State::open) continue;
      CHECK(peer.state() == Peer::State::eof);
      --open;
      peer.close();
    }
    if (!stopped && turn == 50) {
      world->backend().stop(kPatience);
      stopped = true;
    }
    if (!moved || target.simulated()) world->pass(1ms);
  }
  for (std::size_t i = 0; i < peers.size(); ++i) {
    REQUIRE(got[i].size() <= sent[i]);
    CHECK(difference(Bytes(stream).first(got[i].size()), got[i]) == "");
  }
  world->finish();
  CHECK(world->watch.failed == 0);
}

CONFORMANCE(drain_flushes, "draining sends what is queued for slow readers", Over::all) {
  const Blob large = pattern(3, 6 << 20);
  std::atomic<int> served = 0;
  auto world = make_world(target);
  world->start(serve([&] {
    Handlers h;
    h.bytes = [&](Out& out, Input, Time) {
      out.write(large);
      ++served;
    };
    return h;
  }));
  Peers peers;
  for (int i = 0; i < 4; ++i) {
    peers.push_back(world->connect({.receive_buffer = 16'384}));
    peers.back()->send(blob_of("x"));
  }
  REQUIRE(world->eventually([&] { return served == 4; }));
  world->backend().stop(24h);
  for (auto& peer : peers) {
    CHECK(difference(large, peer->read_all()) == "");
    peer->close();
  }
  CHECK(world->eventually([&] { return world->run_returned(); }));
  world->finish();
  CHECK(world->watch.failed == 0);
}

CONFORMANCE(hard_stop, "what is left when the grace period ends is cut off", Over::all) {
  // Some sessions ignore on_drain, some wait for clients that do not read.
  struct Shared {
    std::atomic<int> cancelled = 0;
    std::atomic<int> other = 0;
  } shared;
  auto world = make_world(target);
  world->start(serve([&] {
    Handlers h;
    h.drain = [](Out&, Time) {};
    h.close = [&](std::error_code e) {
      e == std::errc::operation_canceled ? ++shared.cancelled : ++shared.other;
    };
    return h;
  }));
  Peers idle = world->connect_many(6);
  for (auto& peer : idle) CHECK(peer->exchange(pattern(1, 100), 100).size() == 100);
  Peers stuck;
  for (int i = 0; i < 3; ++i) {
    stuck.push_back(world->connect({.receive_buffer = 4096}));
    stuck.back()->send_until_stuck(pattern(2, 32 << 20));
  }
  const Time before = world->now();
  world->backend().stop(200ms);
  CHECK(world->eventually([&] { return world->run_returned(); }));
  CHECK(world->now() - before >= 200ms);
  CHECK(shared.cancelled == 9);
  CHECK(shared.other == 0);
  for (auto& peer : idle) peer->read_end();
  world->finish();
  CHECK(world->watch.failed == 9);
}

CONFORMANCE(stop_from_callback, "a session may stop the backend", Over::all) {
  auto world = make_world(target);
  Backend& backend = world->backend();
  world->start(serve([&] {
    Handlers h;
    h.bytes = [&](Out& out, Input in, Time) {
      out.forward(in);
      if (in.back() == std::byte{'!'}) backend.stop(kPatience);
    };
    return h;
  }));
  Peers peers = world->connect_many(8);
  for (auto& peer : peers) CHECK(peer->exchange(blob_of("hello"), 5) == blob_of("hello"));
  peers[3]->send(blob_of("stop!"));
  for (std::size_t i = 0; i < peers.size(); ++i) {
    CHECK(difference(blob_of(i == 3 ? "stop!" : ""), peers[i]->read_all()) == "");
  }
  peers.clear();
  CHECK(world->eventually([&] { return world->run_returned(); }));
  world->finish();
  CHECK(world->watch.failed == 0);
}

CONFORMANCE(stop_with_everything, "posts and deadlines and traffic go on while it drains",
            Over::all) {
  std::mutex mutex;
  std::vector<ConnId> ids;
  std::atomic<bool> done = false;
  auto world = make_world(target);
  Backend& backend = world->backend();
  world->start(serve(
      [&] {
        Handlers h;
        h.open = [&](Out& out, ConnId id, Time now) {
          out.wake_at(now + 1ms);
          const std::scoped_lock lock(mutex);
          ids.push_back(id);
        };
        h.deadline = [](Out& out, Time now) { out.wake_at(now + 1ms); };
        h.post = [](Out& out, const Post& post, Time) { out.share(post.frame); };
        // Goes on until its client closes.
        h.drain = [](Out& out, Time) { out.write(blob_of("!")); };
        return h;
      },
      Pushes::yes));
  Peers peers = world->connect_many(10);
  REQUIRE(world->eventually([&] {
    const std::scoped_lock lock(mutex);
    return ids.size() == 10;
  }));
  std::vector<std::function<bool()>> actors;
  actors.emplace_back([&] {
    backend.post(ids, {1, frame_of(pattern(1, 50))});
    world->pass(100us);
    return !done;
  });
  actors.emplace_back([&, turn = 0]() mutable {
    for (auto& peer : peers) {
      peer->send_some(pattern(2, 100));
      peer->read_some(10'000);
    }
    if (++turn == 20) backend.stop(24h);
    if (turn < 60) return true;
    done = true;
    return false;
  });
  world->race(std::move(actors));
  for (auto& peer : peers) {
    peer->half_close();
    CHECK(peer->read_end() == Peer::State::eof);
  }
  peers.clear();
  CHECK(world->eventually([&] { return world->run_returned(); }));
  world->finish();
  CHECK(world->watch.failed == 0);
}

}  // namespace
}  // namespace echolab::test
