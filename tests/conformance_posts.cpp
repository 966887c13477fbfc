// Posts: from any thread, in order, to the right connection or to nobody.
#include <array>
#include <atomic>
#include <cstring>
#include <mutex>
#include <set>
#include <tuple>

#include "tests/world.hpp"

namespace echolab::test {
namespace {

using Key = std::tuple<std::uint16_t, std::uint32_t, std::uint32_t>;
Key key_of(const ConnId& id) {
  return {id.shard, id.slot, id.generation};
}

// Who is connected, as a hub would know it.
class Members {
 public:
  void add(const ConnId& id) {
    const std::scoped_lock lock(mutex_);
    ids_.push_back(id);
  }
  void remove(const ConnId& id) {
    const std::scoped_lock lock(mutex_);
    std::erase(ids_, id);
  }
  [[nodiscard]] std::vector<ConnId> all() const {
    const std::scoped_lock lock(mutex_);
    return ids_;
  }
  [[nodiscard]] std::size_t size() const { return all().size(); }

 private:
  mutable std::mutex mutex_;
  std::vector<ConnId> ids_;
};

// A session that is a member while it is open and writes every frame that is posted to it.
Handlers member(Members& members) {
  Handlers h;
  auto own = std::make_shared<ConnId>();
  h.open = [own, &members](Out&, ConnId id, Time) {
    *own = id;
    members.add(id);
  };
  h.post = [](Out& out, const Post& post, Time) { out.share(post.frame); };
  h.close = [own, &members](std::error_code) { members.remove(*own); };
  return h;
}

CONFORMANCE(post_wakes, "a post wakes a sleeping backend every time", Over::all) {
  Members members;
  auto world = make_world(target);
  world->start(serve([&] { return member(members); }, Pushes::yes));
  Peers peers = world->connect_many(4);
  REQUIRE(world->eventually([&] { return members.size() == 4; }));
  for (std::size_t i = 0; i < 300; ++i) {
    const std::vector<ConnId> all = members.all();
    world->backend().post({&all[i % all.size()], 1}, {i, frame_of(pattern(i, 10))});
    bool found = false;
    REQUIRE(world->eventually([&] {
      for (auto& peer : peers) {
        Blob got = peer->read_some(10);
        if (got.empty()) continue;
        const Blob rest = peer->read(10 - got.size());
        got.insert(got.end(), rest.begin(), rest.end());
        found = difference(pattern(i, 10), got) == "";
        return true;
      }
      return false;
    }));
    REQUIRE(found);
  }
  world->finish();
}

CONFORMANCE(post_order, "posts of one thread arrive in order and none is lost", Over::all) {
  constexpr std::size_t kThreads = 4;
  const std::size_t each = scaled(2'000, 400);
  Members members;
  auto world = make_world(target);
  world->start(serve([&] { return member(members); }, Pushes::yes));
  Peers peers = world->connect_many(3);
  REQUIRE(world->eventually([&] { return members.size() == 3; }));
  const std::vector<ConnId> ids = members.all();
  std::vector<std::function<bool()>> actors;
  for (std::size_t t = 0; t < kThreads; ++t) {
    actors.emplace_back([&, t, n = std::size_t{0}]() mutable {
      const std::uint32_t label[] = {static_cast<std::uint32_t>(t), static_cast<std::uint32_t>(n)};
      const Bytes bytes = std::as_bytes(std::span(label));
      world->backend().post(ids, {t, frame_of(Blob(bytes.begin(), bytes.end()))});
      return ++n < each;
    });
  }
  world->race(std::move(actors));
  for (auto& peer : peers) {
    const Blob got = peer->read(kThreads * each * 8);
    std::array<std::uint32_t, kThreads> next{};
    for (std::size_t i = 0; i < got.size(); i += 8) {
      std::array<std::uint32_t, 2> label{};
      std::memcpy(label.data(), got.data() + i, 8);
      REQUIRE(label[0] < kThreads);
      REQUIRE(label[1] == next[label[0]]++);
    }
  }
  world->finish();
}

CONFORMANCE(post_to_many, "one post reaches many", Over::all) {
  const std::size_t n = std::min<std::size_t>(scaled(300, 60), target.capacity());
  Members members;
  auto world = make_world(target);
  world->start(serve([&] { return member(members); }, Pushes::yes));
  Peers peers = world->connect_many(n);
  REQUIRE(world->eventually([&] { return members.size() == n; }));
  const std::vector<ConnId> ids = members.all();
  Blob expected;
  for (std::size_t i = 0; i < 20; ++i) {
    const Blob part = pattern(i, 1 + i * 100);
    expected.insert(expected.end(), part.begin(), part.end());
    world->backend().post(ids, {i, frame_of(part)});
  }
  for (auto& peer : peers) CHECK(difference(expected, peer->read(expected.size())) == "");
  world->finish();
  CHECK(world->watch.posts == static_cast<std::int64_t>(20 * n));
}

CONFORMANCE(post_from_callback, "a chat: sessions post to each other and to themselves",
            Over::all) {
  Members members;
  auto world = make_world(target);
  Backend& backend = world->backend();
  world->start(serve(
      [&] {
        Handlers h = member(members);
        h.bytes = [&](Out&, Input in, Time) {
          backend.post(members.all(), {0, frame_of(Blob(in.begin(), in.end()))});
        };
        return h;
      },
      Pushes::yes));
  Peers peers = world->connect_many(10);
  REQUIRE(world->eventually([&] { return members.size() == 10; }));
  for (std::size_t i = 0; i < 50; ++i) {
    const Blob said = pattern(i, 30);
    peers[i % 10]->send(said);
    for (auto& peer : peers) REQUIRE(difference(said, peer->read(said.size())) == "");
  }
  world->finish();
}

CONFORMANCE(post_ping_pong, "two sessions post to and fro a thousand times", Over::all) {
  // Each post is made while the other loop is about to sleep: a lost wake-up stops the game.
  constexpr std::uint64_t kTimes = 1000;
  Members members;
  std::atomic<std::uint64_t> reached = 0;
  auto world = make_world(target);
  Backend& backend = world->backend();
  world->start(serve(
      [&] {
        Handlers h = member(members);
        h.post = [&](Out&, const Post& post, Time) {
          reached = post.topic;
          if (post.topic == kTimes) return;
          const std::vector<ConnId> both = members.all();
          backend.post({&both[post.topic % 2], 1}, {post.topic + 1, nullptr});
        };
        return h;
      },
      Pushes::yes));
  Peers peers = world->connect_many(2);
  REQUIRE(world->eventually([&] { return members.size() == 2; }));
  const ConnId first = members.all()[0];
  backend.post({&first, 1}, {1, nullptr});
  CHECK(world->eventually([&] { return reached == kTimes; }));
  world->finish();
}

CONFORMANCE(post_in_open_and_close, "posts from on_open and from on_close", Over::all) {
  Members members;
  auto world = make_world(target);
  Backend& backend = world->backend();
  world->start(serve(
      [&] {
        Handlers h;
        auto own = std::make_shared<ConnId>();
        h.open = [own, &members, &backend](Out&, ConnId id, Time) {
          *own = id;
          members.add(id);
          backend.post({own.get(), 1}, {0, frame_of(blob_of("me"))});
        };
        h.post = [](Out& out, const Post& post, Time) { out.share(post.frame); };
        h.close = [own, &members, &backend](std::error_code) {
          members.remove(*own);
          backend.post({own.get(), 1}, {0, frame_of(blob_of("nobody"))});
          backend.post(members.all(), {0, frame_of(blob_of("left"))});
        };
        return h;
      },
      Pushes::yes));
  Peers peers = world->connect_many(6);
  for (auto& peer : peers) CHECK(difference(blob_of("me"), peer->read(2)) == "");
  for (std::size_t i = 0; i + 1 < peers.size(); ++i) {
    if (i % 2 == 0) {
      CHECK(peers[i]->exchange_all({}).empty());
    } else {
      peers[i]->reset();
    }
    for (std::size_t k = i + 1; k < peers.size(); ++k) {
      REQUIRE(difference(blob_of("left"), peers[k]->read(4)) == "");
    }
  }
  CHECK(world->eventually([&] { return world->backend().stats().get(Count::posts_stale) >= 5; }));
  world->finish();
}

CONFORMANCE(post_stale, "posts to connections that have ended are dropped and counted", Over::all) {
  Members members;
  auto world = make_world(target);
  world->start(serve([&] { return member(members); }, Pushes::yes));
  constexpr std::size_t kOld = 20;
  Peers old = world->connect_many(kOld);
  REQUIRE(world->eventually([&] { return members.size() == kOld; }));
  const std::vector<ConnId> gone = members.all();
  for (auto& peer : old) CHECK(peer->exchange_all({}).empty());
  REQUIRE(world->eventually([&] { return world->watch.destroyed == std::int64_t{kOld}; }));

  // The newcomers reuse the slots.
  Peers peers = world->connect_many(kOld);
  REQUIRE(world->eventually([&] { return members.size() == kOld; }));
  const std::vector<ConnId> here = members.all();
  std::set<Key> keys;
  for (const ConnId& id : gone) keys.insert(key_of(id));
  for (const ConnId& id : here) keys.insert(key_of(id));
  CHECK(keys.size() == 2 * kOld);

  world->backend().post(gone, {1, frame_of(blob_of("wrong"))});
  world->backend().post(here, {1, frame_of(blob_of("right"))});
  world->backend().post({}, {1, frame_of(blob_of("nobody"))});
  for (auto& peer : peers) CHECK(difference(blob_of("right"), peer->read(5)) == "");
  CHECK(world->eventually(
      [&] { return world->backend().stats().get(Count::posts_stale) == gone.size(); }));
  world->finish();
  CHECK(world->watch.posts == static_cast<std::int64_t>(kOld));
}

CONFORMANCE(post_invented, "posts to ids that never were do no harm", Over::all) {
  Members members;
  auto world = make_world(target);
  // None of them can become the id of this test's one connection.
  const ConnId invented[] = {{0, 9, 0},      {7, 1, 0},          {1U << 31, 3, 1},
                             {0, 1, 0xffff}, {~0U, ~0U, 0xffff}, {3, 0, 5}};
  world->backend().post(invented, {1, frame_of(blob_of("before run"))});
  world->start(serve([&] { return member(members); }, Pushes::yes));
  world->backend().post(invented, {1, frame_of(blob_of("no one here yet"))});
  auto peer = world->connect();
  REQUIRE(world->eventually([&] { return members.size() == 1; }));
  world->backend().post(invented, {1, frame_of(blob_of("not this one"))});
  const Blob request = pattern(1, 1000);
  CHECK(difference(request, peer->exchange_all(request)) == "");
  world->finish();
  world->backend().post(invented, {1, frame_of(blob_of("after run"))});
}

CONFORMANCE(post_races_close, "posts race closes", Over::all) {
  // Three posters address whoever is a member, while a client opens and ends connections in every
  // way. A post must reach the session that it was for: its topic says which.
  struct Shared {
    Members members;
    std::atomic<int> wrong = 0;
    std::atomic<bool> done = false;
  } shared;
  const auto topic_of = [](const ConnId& id) {
    return (std::uint64_t{id.generation} << 32) | (std::uint64_t{id.shard} << 24) | id.slot;
  };
  auto world = make_world(target);
  Backend& backend = world->backend();
  world->start(serve(
      [&] {
        Handlers h;
        auto own = std::make_shared<ConnId>();
        h.open = [own, &shared](Out&, ConnId id, Time) {
          *own = id;
          shared.members.add(id);
        };
        h.post = [own, &shared, &topic_of](Out& out, const Post& post, Time) {
          if (post.topic != topic_of(*own)) ++shared.wrong;
          out.share(post.frame);
        };
        h.close = [own, &shared](std::error_code) { shared.members.remove(*own); };
        return h;
      },
      Pushes::yes));

  const Frame frame = frame_of(pattern(1, 200));
  std::vector<std::function<bool()>> actors;
  for (int t = 0; t < 3; ++t) {
    actors.emplace_back([&] {
      for (const ConnId& id : shared.members.all()) backend.post({&id, 1}, {topic_of(id), frame});
      world->pass(50us);
      return !shared.done;
    });
  }
  const std::size_t rounds = scaled(300, 80);
  actors.emplace_back([&, round = std::size_t{0}]() mutable {
    Peers peers = world->connect_many(3);
    peers[0]->send_some(pattern(2, 50));
    peers[round % 3]->wait(true, false, 2ms);
    peers[0]->half_close();
    peers[1]->reset();
    peers[2]->close();
    if (++round == rounds) shared.done = true;
    return round < rounds;
  });
  world->race(std::move(actors));
  CHECK(world->eventually([&] { return world->watch.destroyed == world->watch.accepted; }));
  world->finish();
  CHECK(shared.wrong == 0);
  CHECK(world->watch.accepted <= static_cast<std::int64_t>(3 * rounds));
  CHECK(shared.members.size() == 0);
}

CONFORMANCE(outbox_limit, "posts beyond the outbox limit end that connection and no other",
            Over::all) {
  WorldOptions options;
  options.limits.outbox_limit = 1 << 20;
  Members members;
  std::atomic<int> overflowed = 0;
  auto world = make_world(target, options);
  Backend& backend = world->backend();
  world->start(serve(
      [&] {
        Handlers h = member(members);
        h.close = [&, inner = h.close](std::error_code e) {
          inner(e);
          if (e == std::errc::no_buffer_space) ++overflowed;
        };
        return h;
      },
      Pushes::yes));
  auto slow = world->connect({.receive_buffer = 4096});
  REQUIRE(world->eventually([&] { return members.size() == 1; }));
  const ConnId victim = members.all()[0];
  auto other = world->connect();
  REQUIRE(world->eventually([&] { return members.size() == 2; }));

  const Frame frame = frame_of(pattern(1, 64 * 1024));
  std::size_t posted = 0;
  const bool closed = world->eventually([&] {
    // A gigabyte is far beyond any socket buffer.
    if (posted++ < 16'384) backend.post({&victim, 1}, {1, frame});
    return overflowed == 1;
  });
  CHECK(closed);
  CHECK(difference(pattern(2, 5000), other->exchange(pattern(2, 5000), 5000)) == "");
  slow->read_end();
  world->finish();
  CHECK(backend.stats().get(Count::overflows) == 1);
  CHECK(world->watch.failed == 1);
}

CONFORMANCE(post_from_accept, "a service posts to the others from accept()", Over::all) {
  Members members;
  auto world = make_world(target);
  Backend& backend = world->backend();
  const Frame frame = frame_of(blob_of("+"));
  world->start(serve(
      [&] {
        backend.post(members.all(), {1, frame});
        return member(members);
      },
      Pushes::yes));
  auto first = world->connect();
  REQUIRE(world->eventually([&] { return members.size() == 1; }));
  auto second = world->connect();
  CHECK(first->read(1).size() == 1);
  world->finish();
}

CONFORMANCE(posts_counted, "each post is counted, delivered or stale, when its session closes",
            Over::one_loop) {
  Members members;
  auto world = make_world(target);
  Backend& backend = world->backend();
  world->start(serve(
      [&] {
        Handlers h = member(members);
        h.post = [](Out& out, const Post&, Time) { out.close(); };
        return h;
      },
      Pushes::yes));
  auto peer = world->connect();
  REQUIRE(world->eventually([&] { return members.size() == 1; }));
  const ConnId id = members.all()[0];
  constexpr std::uint64_t kPosts = 200;
  for (std::uint64_t i = 0; i < kPosts; ++i) backend.post({&id, 1}, {1, nullptr});
  CHECK(peer->read_all().empty());
  peer->close();
  world->finish();
  const Stats stats = backend.stats();
  CHECK(stats.get(Count::posts) == 1);
  CHECK(stats.get(Count::posts) + stats.get(Count::posts_stale) == kPosts);
}

}  // namespace
}  // namespace echolab::test
