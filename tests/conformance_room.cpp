// Sessions that write only when there is room: await_room and queued().
#include <atomic>
#include <mutex>

#include "tests/world.hpp"

namespace echolab::test {
namespace {

constexpr std::size_t kLarge = 12 << 20;  // bytes; more than the sockets between two ends hold

CONFORMANCE(room_at_once, "where nothing is queued there is room at once", Over::one_loop) {
  auto world = make_world(target);
  std::atomic<int> nested = 0;
  world->start(serve([&] {
    Handlers h;
    auto inside = std::make_shared<bool>(false);
    h.bytes = [inside](Out& out, Input, Time) {
      *inside = true;
      out.await_room();
      out.await_room();
      *inside = false;
    };
    h.room = [inside, &nested](Out& out, Time) {
      if (*inside) ++nested;
      out.write(blob_of("r"));
    };
    return h;
  }));
  auto peer = world->connect();
  for (int i = 0; i < 50; ++i) {
    CHECK(difference(blob_of("r"), peer->exchange(pattern(1, 1), 1)) == "");
  }
  world->pass(kMoment);
  CHECK(world->watch.rooms == 50);
  CHECK(nested == 0);
  world->finish();
}

CONFORMANCE(room_everywhere, "each callback may await room", Over::one_loop) {
  for (const std::string where : {"open", "bytes", "eof", "post", "deadline", "room", "drain"}) {
    CAPTURE(where);
    auto world = make_world(target);
    Backend& backend = world->backend();
    std::atomic<bool> opened = false;
    world->start(serve(
        [&] {
          Handlers h;
          h.open = [&](Out& out, ConnId id, Time now) {
            if (where == "open" || where == "room") out.await_room();
            if (where == "deadline") out.wake_at(now + 1ms);
            if (where == "post") backend.post({&id, 1}, {1, nullptr});
            opened = true;
          };
          h.bytes = [](Out& out, Input, Time) { out.await_room(); };
          h.eof = [&](Out& out, Time) { where == "eof" ? out.await_room() : out.close(); };
          h.post = [](Out& out, const Post&, Time) { out.await_room(); };
          h.deadline = [](Out& out, Time) { out.await_room(); };
          h.drain = [](Out& out, Time) { out.await_room(); };
          h.room = [&, again = where == "room"](Out& out, Time) mutable {
            if (std::exchange(again, false)) return out.await_room();
            out.write(blob_of("room"));
            out.close();
          };
          return h;
        },
        Pushes::yes));
    auto peer = world->connect();
    if (where == "bytes") peer->send(pattern(1, 1));
    if (where == "eof") peer->half_close();
    if (where == "drain") {
      REQUIRE(world->eventually([&] { return opened.load(); }));
      backend.stop(kPatience);
    }
    CHECK(difference(blob_of("room"), peer->read_all()) == "");
    peer->close();
    world->finish();
    CHECK(world->watch.failed == 0);
  }
}

CONFORMANCE(room_for_slow, "room comes when a slow reader has caught up", Over::one_loop) {
  const auto pushes = GENERATE(Pushes::no, Pushes::yes);
  std::atomic<std::size_t> queued = SIZE_MAX;
  auto world = make_world(target);
  world->start(serve(
      [&] {
        Handlers h;
        h.open = [](Out& out, ConnId, Time) {
          out.write(pattern(1, kLarge));
          out.await_room();
        };
        h.room = [&](Out& out, Time) {
          queued = out.queued();
          out.write(blob_of("!"));
        };
        return h;
      },
      pushes));
  auto peer = world->connect({.receive_buffer = 4096});
  REQUIRE(world->eventually([&] { return world->watch.opened == 1; }));
  world->pass(kMoment);
  CHECK(world->watch.rooms == 0);
  CHECK(difference(pattern(1, kLarge), peer->read(kLarge)) == "");
  CHECK(difference(blob_of("!"), peer->read(1)) == "");
  CHECK(queued <= WorldOptions().limits.low_water);
  world->finish();
  CHECK(world->watch.rooms == 1);
}

CONFORMANCE(room_streams, "a stream that is written as room comes is whole and bounded",
            Over::one_loop) {
  const std::size_t total = scaled(64, 8) << 20;
  constexpr std::size_t kPart = 48 * 1024;
  std::atomic<std::size_t> most = 0;
  auto world = make_world(target);
  world->start(serve([&] {
    Handlers h;
    h.open = [](Out& out, ConnId, Time) { out.await_room(); };
    h.room = [&, done = std::size_t{0}](Out& out, Time) mutable {
      most = std::max(most.load(), out.queued());
      const std::size_t n = std::min(kPart, total - done);
      out.write(pattern(5, n, done));
      done += n;
      done < total ? out.await_room() : out.close();
    };
    return h;
  }));
  auto peer = world->connect({.receive_buffer = 64 * 1024});
  CHECK(difference(pattern(5, total), peer->read_all()) == "");
  CHECK(most <= WorldOptions().limits.low_water);
  peer->close();
  world->finish();
  CHECK(world->watch.failed == 0);
}

CONFORMANCE(room_is_fair, "a session that always finds room does not keep others waiting",
            Over::one_loop) {
  std::atomic<int> next = 0;
  std::atomic<bool> done = false;
  auto world = make_world(target);
  world->start(serve([&] {
    Handlers h;
    if (next++ > 0) return h;
    const auto more = [](Out& out) {
      out.write(blob_of("more"));
      out.await_room();
    };
    h.open = [=](Out& out, ConnId, Time) { more(out); };
    h.room = [=](Out& out, Time) { more(out); };
    return h;
  }));
  auto greedy = world->connect();
  greedy->read(1000);
  auto other = world->connect();
  std::vector<std::function<bool()>> actors;
  actors.emplace_back([&] {
    greedy->read_some(1 << 20);
    return !done;
  });
  actors.emplace_back([&, i = std::size_t{0}]() mutable {
    CHECK(difference(pattern(i, 300), other->exchange(pattern(i, 300), 300)) == "");
    done = ++i == 30;
    return !done;
  });
  world->race(std::move(actors));
  world->backend().stop(0s);
  world->finish();
}

CONFORMANCE(room_after_close, "no room comes after close or abort or the end", Over::one_loop) {
  auto world = make_world(target);
  world->start(serve([&] {
    Handlers h;
    h.bytes = [](Out& out, Input in, Time now) {
      out.await_room();
      switch (std::to_integer<char>(in[0])) {
        case 'c':
          return out.close();
        case 'a':
          return out.abort();
        case 'q':  // what is queued keeps the room away until it has closed
          out.write(pattern(1, kLarge));
          out.wake_at(now);
          return;
        default:  // its client resets
          out.write(pattern(1, kLarge));
          return;
      }
    };
    h.deadline = [](Out& out, Time) { out.close(); };
    return h;
  }));
  for (const char* how : {"c", "a", "q", "x"}) {
    auto peer = world->connect({.receive_buffer = 4096});
    peer->send(blob_of(how));
    if (how[0] == 'x') {
      peer->read(1);
      peer->reset();
    } else {
      peer->read_end();
    }
  }
  CHECK(world->eventually([&] { return world->watch.destroyed == 4; }));
  world->finish();
  CHECK(world->watch.rooms == 0);
}

CONFORMANCE(queued_is_true, "queued() says what waits to be sent", Over::one_loop) {
  // The session tells on request, by a post, while its client does not read and when it has.
  constexpr std::size_t kUnknown = SIZE_MAX;
  std::atomic<std::size_t> first = kUnknown;
  std::atomic<std::size_t> now_queued = kUnknown;
  std::mutex mutex;
  std::vector<ConnId> ids;
  auto world = make_world(target);
  Backend& backend = world->backend();
  world->start(serve(
      [&] {
        Handlers h;
        h.open = [&](Out&, ConnId id, Time) {
          const std::scoped_lock lock(mutex);
          ids.push_back(id);
        };
        h.bytes = [&](Out& out, Input, Time) {
          first = out.queued();
          out.write(pattern(1, kLarge));
        };
        h.post = [&](Out& out, const Post&, Time) { now_queued = out.queued(); };
        return h;
      },
      Pushes::yes));
  auto peer = world->connect({.receive_buffer = 4096});
  peer->send(pattern(1, 1));
  const auto ask = [&] {
    now_queued = kUnknown;
    {
      const std::scoped_lock lock(mutex);
      backend.post(ids, {1, nullptr});
    }
    REQUIRE(world->eventually([&] { return now_queued != kUnknown; }));
    return now_queued.load();
  };
  peer->read(1);
  CHECK(first == 0);
  const std::size_t at_first = ask();
  CHECK(at_first > 0);
  CHECK(at_first <= kLarge);  // a completion tells of the whole
  CHECK(difference(pattern(1, kLarge - 1, 1), peer->read(kLarge - 1)) == "");
  CHECK(world->eventually([&] { return ask() == 0; }));
  world->finish();
}

}  // namespace
}  // namespace echolab::test
