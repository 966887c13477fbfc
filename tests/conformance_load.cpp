// Many connections, and connections that take more than they are given.
#include <atomic>
#include <future>
#include <mutex>
#include <set>
#include <tuple>

#include "tests/world.hpp"

namespace echolab::test {
namespace {

CONFORMANCE(churn, "a thousand connections come and go and each is answered", Over::all) {
  // Slots and descriptors are reused all the time. Ids must not be, and posts to old ids must not
  // reach the newcomers.
  struct Shared {
    std::mutex mutex;
    std::vector<ConnId> ids;  // every connection that ever was
    std::atomic<int> wrong = 0;
  } shared;
  auto world = make_world(target);
  Backend& backend = world->backend();
  const Frame frame = frame_of(blob_of("?"));
  world->start(serve(
      [&] {
        Handlers h;
        h.open = [&](Out&, ConnId id, Time) {
          const std::scoped_lock lock(shared.mutex);
          shared.ids.push_back(id);
        };
        h.post = [&](Out&, const Post&, Time) { ++shared.wrong; };
        return h;
      },
      Pushes::yes));
  constexpr std::size_t kAtOnce = 50;
  const std::size_t total = scaled(1000, 500);
  for (std::size_t done = 0; done < total; done += kAtOnce) {
    Peers peers = world->connect_many(kAtOnce);
    std::vector<Blob> requests;
    for (std::size_t i = 0; i < kAtOnce; ++i) {
      requests.push_back(pattern(done + i, 1 + (done + i) * 97 % 3000));
    }
    const std::vector<Blob> replies = exchange_on_all(peers, requests);
    for (std::size_t i = 0; i < kAtOnce; ++i) {
      REQUIRE(difference(requests[i], replies[i]) == "");
      switch (i % 4) {
        case 0:
          peers[i]->close();
          break;
        case 1:
          peers[i]->reset();
          break;
        case 2:
          CHECK(peers[i]->exchange_all({}).empty());
          break;
        default:
          peers[i]->half_close();
          break;
      }
    }
    peers.clear();
    const auto so_far = static_cast<std::int64_t>(done + kAtOnce);
    REQUIRE(world->eventually([&] { return world->watch.destroyed == so_far; }));
    const std::scoped_lock lock(shared.mutex);
    backend.post(shared.ids, {0, frame});
  }
  std::set<std::tuple<unsigned, unsigned, unsigned>> unique;
  for (const ConnId& id : shared.ids) unique.insert({id.shard, id.slot, id.generation});
  CHECK(unique.size() == total);
  std::size_t posted = 0;
  for (std::size_t done = kAtOnce; done <= total; done += kAtOnce) posted += done;
  CHECK(world->eventually([&] { return backend.stats().get(Count::posts_stale) == posted; }));
  world->finish();
  CHECK(shared.wrong == 0);
  CHECK(world->watch.accepted == static_cast<std::int64_t>(total));
}

CONFORMANCE(crowd, "a thousand connections at the same time", Over::all) {
  const std::size_t n = std::min<std::size_t>(scaled(1000, 300), target.capacity());
  auto world = make_world(target);
  world->start(serve_echo());
  Peers peers = world->connect_many(n);
  for (std::size_t round = 0; round < 3; ++round) {
    std::vector<Blob> requests;
    for (std::size_t i = 0; i < n; ++i) requests.push_back(pattern(round * n + i, 700));
    const std::vector<Blob> replies = exchange_on_all(peers, requests);
    for (std::size_t i = 0; i < n; ++i) REQUIRE(difference(requests[i], replies[i]) == "");
  }
  CHECK(world->watch.accepted == static_cast<std::int64_t>(n));
  for (auto& peer : peers) peer->half_close();
  for (auto& peer : peers) CHECK(peer->read_all().empty());
  CHECK(world->eventually([&] { return world->watch.destroyed == world->watch.accepted; }));
  world->finish();
}

CONFORMANCE(beyond_capacity, "connections beyond a pool's size are served when it is their turn",
            Over::one_loop) {
  auto world = make_world(target);
  world->start(serve_echo());
  Peers peers = world->connect_many(150);
  for (std::size_t i = 0; i < peers.size(); ++i) peers[i]->send(pattern(i, 100));
  for (std::size_t i = 0; i < peers.size(); ++i) {
    CHECK(difference(pattern(i, 100), peers[i]->exchange_all({})) == "");
    peers[i]->close();
  }
  world->finish();
  CHECK(world->watch.accepted == 150);
}

CONFORMANCE(backpressure, "a client that does not read is not read from", Over::one_loop) {
  auto world = make_world(target);
  world->start(serve_echo());
  const Limits limits = WorldOptions().limits;
  const std::size_t tiny = GENERATE(0, 1);
  auto peer = world->connect({.receive_buffer = tiny == 1 ? 4096 : 0});
  const Blob all = pattern(1, 64 << 20);
  const std::size_t sent = peer->send_until_stuck(all);
  CHECK(sent < all.size());
  const Stats stats = world->backend().stats();
  const std::uint64_t in = stats.get(Count::bytes_in);
  const std::uint64_t out = stats.get(Count::bytes_out);
  // What is in between lies in user space: the high-water mark and what was on its way already.
  constexpr std::uint64_t kOnItsWay = 1 << 20;
  CHECK(in <= out + limits.high_water + kOnItsWay);
  // Reading again brings back everything.
  const Bytes head = Bytes(all).first(sent);
  CHECK(difference(head, peer->read(sent)) == "");
  const Bytes next = Bytes(all).subspan(sent, 1 << 20);
  CHECK(difference(next, peer->exchange_all(next)) == "");
  world->finish();
  CHECK(world->backend().stats().get(Count::overflows) == 0);
}

CONFORMANCE(deadline_overflow,
            "a session that writes on its deadlines to a client that does not read is closed",
            Over::one_loop) {
  WorldOptions options;
  options.limits.outbox_limit = 1 << 20;
  std::atomic<int> overflowed = 0;
  const Blob block = pattern(1, 256 * 1024);
  auto world = make_world(target, options);
  world->start(serve([&] {
    Handlers h;
    h.open = [](Out& out, ConnId, Time now) { out.wake_at(now + 1ms); };
    h.deadline = [&](Out& out, Time now) {
      out.write(block);
      out.wake_at(now + 1ms);
    };
    h.close = [&](std::error_code e) {
      if (e == std::errc::no_buffer_space) ++overflowed;
    };
    return h;
  }));
  auto peer = world->connect({.receive_buffer = 4096});
  CHECK(world->eventually([&] { return overflowed == 1; }));
  peer->read_end();
  world->finish();
  CHECK(world->backend().stats().get(Count::overflows) == 1);
}

CONFORMANCE(short_send, "a reply that does not fit into the socket goes on when the client reads",
            Over::one_loop) {
  // Larger than the socket buffers and below the high-water mark: reading never stops, and after
  // the one byte of the request only room to send can wake the backend.
  WorldOptions options;
  options.limits.high_water = 64 << 20;
  options.limits.outbox_limit = 128 << 20;
  const Blob reply = pattern(1, 6 << 20);
  auto world = make_world(target, options);
  world->start(serve([&] {
    Handlers h;
    h.bytes = [&](Out& out, Input, Time) { out.write(reply); };
    return h;
  }));
  for (const int buffer : {0, 4096}) {
    auto peer = world->connect({.receive_buffer = buffer});
    for (int i = 0; i < 2; ++i) {
      peer->send(blob_of("x"));
      world->pass(kMoment);  // so that the backend has sent what fits, and sleeps
      CHECK(difference(reply, peer->read(reply.size())) == "");
    }
  }
  world->finish();
}

CONFORMANCE(slow_readers, "slow readers do not hold up the others and lose nothing", Over::all) {
  auto world = make_world(target);
  world->start(serve_echo());
  constexpr std::size_t kSlow = 6;
  const Blob large = pattern(1, 24 << 20);
  Peers slow;
  std::vector<std::size_t> sent;
  for (std::size_t i = 0; i < kSlow; ++i) {
    slow.push_back(world->connect({.receive_buffer = 4096}));
    sent.push_back(slow.back()->send_until_stuck(large));
  }
  // The others work as if nothing were the matter.
  Peers quick = world->connect_many(10);
  for (std::size_t round = 0; round < 20; ++round) {
    for (auto& peer : quick) {
      const Blob request = pattern(round, 3000);
      REQUIRE(difference(request, peer->exchange(request, request.size())) == "");
    }
  }
  // Some of the slow ones read on after all, in small pieces; the others go away.
  for (std::size_t i = 0; i < kSlow; ++i) {
    if (i % 3 != 0) {
      i % 3 == 1 ? slow[i]->reset() : slow[i]->close();
      continue;
    }
    Blob got;
    const std::size_t part = std::min<std::size_t>(sent[i], 1 << 18);
    while (got.size() < part) {
      const Blob some = slow[i]->read(std::min<std::size_t>(1000, part - got.size()));
      got.insert(got.end(), some.begin(), some.end());
    }
    CHECK(difference(Bytes(large).first(part), got) == "");
    const Blob rest = slow[i]->exchange_all({});
    CHECK(difference(Bytes(large).subspan(part, sent[i] - part), rest) == "");
  }
  for (auto& peer : quick) CHECK(peer->exchange(pattern(2, 10), 10).size() == 10);
  world->finish();
  // Only posts, and sessions that answer more than they are asked, may reach the outbox limit.
  CHECK(world->backend().stats().get(Count::overflows) == 0);
}

CONFORMANCE(both_ways, "eight megabytes both ways at once on four connections", Over::one_loop) {
  auto world = make_world(target);
  world->start(serve_echo());
  Peers peers = world->connect_many(4);
  std::vector<Blob> requests;
  for (std::size_t i = 0; i < peers.size(); ++i) requests.push_back(pattern(i, 8 << 20));
  const std::vector<Blob> replies = exchange_on_all(peers, requests);
  for (std::size_t i = 0; i < peers.size(); ++i) CHECK(difference(requests[i], replies[i]) == "");
  world->finish();
  const Stats stats = world->backend().stats();
  CHECK(stats.get(Count::bytes_in) == stats.get(Count::bytes_out));
  CHECK(stats.get(Count::bytes_in) == 4U * (8U << 20));
}

CONFORMANCE(counted, "counters say what happened", Over::one_loop) {
  auto world = make_world(target);
  world->start(serve_echo());
  constexpr std::size_t kPeers = 5;
  Peers peers = world->connect_many(kPeers);
  for (auto& peer : peers) {
    for (std::size_t i = 0; i < 20; ++i) peer->exchange(pattern(i, 64), 64);
  }
  for (auto& peer : peers) CHECK(peer->exchange_all({}).empty());
  world->finish();
  const Stats stats = world->backend().stats();
  CHECK(stats.get(Count::accepted) == kPeers);
  CHECK(stats.get(Count::bytes_in) == kPeers * 20 * 64);
  CHECK(stats.get(Count::bytes_out) == kPeers * 20 * 64);
  CHECK(stats.get(Count::inputs) >= kPeers * 20);
  CHECK(stats.get(Count::inputs) <= kPeers * 20 * 64);
  CHECK(stats.get(Count::overflows) == 0);
  CHECK(stats.get(Count::cq_overflows) == 0);
  CHECK(stats.get(Count::posts) + stats.get(Count::posts_stale) == 0);
  std::uint64_t batches = 0;
  for (const std::uint64_t n : stats.batches) batches += n;
  CHECK(batches <= stats.get(Count::wakeups));
  if (!target.simulated()) {
    CHECK(stats.get(Count::wakeups) > 0);
    for (const Feature& f : stats.features) CHECK_FALSE(f.name.empty());
  }
}

CONFORMANCE(idle_crowd, "clients that say nothing do not keep others from being read",
            Over::one_loop) {
  // All come while the loop is busy, so that what it reads into runs out in the midst of them.
  constexpr std::size_t kTalking = 40;
  constexpr std::size_t kSilent = 200;
  if (target.simulated() || target.capacity() < 2 * kTalking + kSilent) return;
  std::promise<void> busy, go;
  std::atomic<bool> asked = false;
  auto world = make_world(target);
  world->start(serve([&] {
    Handlers h;
    h.bytes = [&](Out& out, Input in, Time) {
      if (!asked.exchange(true)) {
        busy.set_value();
        go.get_future().wait();
      }
      out.forward(in);
    };
    return h;
  }));
  auto first = world->connect();
  first->send(pattern(1, 1));
  REQUIRE(busy.get_future().wait_for(kPatience) == std::future_status::ready);
  const Blob request = pattern(2, 64 * 1024);
  const auto talk = [&] {
    Peers peers = world->connect_many(kTalking);
    for (auto& peer : peers) peer->send(request);
    return peers;
  };
  Peers early = talk();
  const Peers silent = world->connect_many(kSilent);
  Peers late = talk();
  go.set_value();
  for (auto* peers : {&early, &late}) {
    for (auto& peer : *peers) CHECK(difference(request, peer->read(request.size())) == "");
  }
  world->finish();
}

}  // namespace
}  // namespace echolab::test
