// How connections end: by either side, half or whole, in order or not.
#include <atomic>

#include "tests/world.hpp"

namespace echolab::test {
namespace {

// Sessions ended with an error of this kind; written by on_close, read by the test.
struct Ends {
  std::atomic<int> clean = 0;
  std::atomic<int> reset = 0;
  std::atomic<int> other = 0;

  [[nodiscard]] int total() const { return clean + reset + other; }
  void count(std::error_code error) {
    if (!error) {
      ++clean;
    } else if (error == std::errc::connection_reset || error == std::errc::broken_pipe) {
      ++reset;
    } else {
      ++other;
    }
  }
};

bool all_gone(World& world) {
  return world.eventually(
      [&] { return world.watch.accepted > 0 && world.watch.destroyed == world.watch.accepted; });
}

CONFORMANCE(half_closed, "a half-closed client gets all of its replies and then EOF",
            Over::one_loop) {
  auto world = make_world(target);
  world->start(serve_echo());
  for (const std::size_t size : {1UL, 5'000UL, 4UL << 20}) {
    auto peer = world->connect();
    const Blob request = pattern(size, size);
    // Sends as far as it goes without reading: replies are still queued when the FIN comes.
    const std::size_t sent = peer->send_until_stuck(request);
    if (sent == size) {
      peer->half_close();
      CHECK(difference(request, peer->read_all()) == "");
    } else {
      const Blob head = peer->read(sent);
      CHECK(difference(Bytes(request).first(sent), head) == "");
      const Bytes rest = Bytes(request).subspan(sent);
      CHECK(difference(rest, peer->exchange_all(rest)) == "");
    }
  }
  world->finish();
  CHECK(world->watch.failed == 0);
}

CONFORMANCE(empty_connection, "a connection that says nothing ends cleanly", Over::one_loop) {
  Ends ends;
  auto world = make_world(target);
  world->start(serve([&] {
    Handlers h;
    h.close = [&](std::error_code e) { ends.count(e); };
    return h;
  }));
  for (int i = 0; i < 20; ++i) CHECK(world->connect()->exchange_all({}).empty());
  CHECK(world->eventually([&] { return ends.clean == 20; }));
  world->finish();
  CHECK(ends.clean == 20);
}

CONFORMANCE(reply_survives_close, "close() sends everything even when the client is still sending",
            Over::one_loop) {
  // The session answers the first byte with a megabyte and closes; what else the client has sent is
  // never read by the session. Closing the socket at once would destroy the reply by an RST.
  const Blob reply = pattern(1, 1 << 20);
  WorldOptions options;
  options.limits.linger = kPatience;
  auto world = make_world(target, options);
  world->start(serve([&] {
    Handlers h;
    h.bytes = [&](Out& out, Input, Time) {
      out.write(reply);
      out.close();
    };
    return h;
  }));
  for (int i = 0; i < 5; ++i) {
    auto peer = world->connect();
    CHECK(difference(reply, peer->exchange_all(pattern(2, 400'000))) == "");
  }
  CHECK(all_gone(*world));
  world->finish();
  CHECK(world->watch.failed == 0);
}

CONFORMANCE(close_after_eof, "close() after the client's FIN does not wait", Over::one_loop) {
  WorldOptions options;
  options.limits.linger = 24h;
  auto world = make_world(target, options);
  world->start(serve_echo());
  std::vector<std::unique_ptr<Peer>> kept;
  for (int i = 0; i < 10; ++i) {
    auto peer = world->connect();
    CHECK(peer->exchange_all(pattern(1, 1000)).size() == 1000);
    kept.push_back(std::move(peer));
  }
  CHECK(all_gone(*world));
  world->finish();
}

CONFORMANCE(linger_ends, "a client that never closes is left after the linger time",
            Over::one_loop) {
  WorldOptions options;
  options.limits.linger = 300ms;
  std::atomic<Time> closed{};
  auto world = make_world(target, options);
  world->start(serve([&] {
    Handlers h;
    h.bytes = [&](Out& out, Input in, Time now) {
      closed = now;
      out.forward(in);
      out.close();
    };
    return h;
  }));
  SECTION("a silent one") {
    auto peer = world->connect();
    peer->send(pattern(1, 1));
    CHECK(difference(pattern(1, 1), peer->read_all()) == "");
    CHECK(all_gone(*world));
    CHECK(world->now() - closed.load() >= options.limits.linger);
  }
  SECTION("one that goes on sending") {
    auto peer = world->connect();
    const Time before = world->now();
    while (world->watch.closed == 0 && world->now() - before < kPatience) {
      peer->send_some(pattern(2, 100));
      world->pass(5ms);
    }
    CHECK(world->watch.closed == 1);
  }
  world->finish();
}

CONFORMANCE(flush_ends, "a client that does not take the last words is left after the flush time",
            Over::one_loop) {
  // More than the socket buffers hold, less than the outbox may. An old deadline must not matter.
  const Blob words = pattern(1, 12 << 20);
  WorldOptions options;
  options.limits.flush = 500ms;
  std::atomic<int> timed_out = 0;
  std::atomic<Time> closed{};
  const Pushes pushes = GENERATE(Pushes::no, Pushes::yes);
  auto world = make_world(target, options);
  world->start(serve(
      [&] {
        Handlers h;
        h.bytes = [&](Out& out, Input, Time now) {
          closed = now;
          out.write(words);
          out.wake_at(now + 1ms);
          out.close();
        };
        h.close = [&](std::error_code e) {
          if (e == std::errc::timed_out) ++timed_out;
        };
        return h;
      },
      pushes));
  auto peer = world->connect({.receive_buffer = 4096});
  peer->send(pattern(1, 1));
  peer->half_close();
  CHECK(all_gone(*world));
  CHECK(timed_out == 1);
  CHECK(world->now() - closed.load() >= options.limits.flush);
  world->finish();
  // It was waited for, not asked about again and again.
  CHECK(world->backend().stats().get(Count::sys_send) < 100);
}

CONFORMANCE(fin_ends_linger, "the client's FIN ends the linger time", Over::one_loop) {
  WorldOptions options;
  options.limits.linger = 24h;
  auto world = make_world(target, options);
  world->start(serve([&] {
    Handlers h;
    h.open = [](Out& out, ConnId, Time) { out.close(); };
    return h;
  }));
  Peers peers = world->connect_many(10);
  for (auto& peer : peers) CHECK(peer->read_all().empty());
  for (auto& peer : peers) peer->half_close();
  CHECK(all_gone(*world));
  world->finish();
}

CONFORMANCE(close_everywhere, "a session may close in each callback and write before it",
            Over::one_loop) {
  for (const std::string where : {"open", "bytes", "eof", "post", "deadline", "drain"}) {
    CAPTURE(where);
    std::atomic<bool> opened = false;
    auto world = make_world(target);
    Backend& backend = world->backend();
    const auto last = [](Out& out) {
      out.write(blob_of("bye"));
      out.close();
    };
    world->start(serve(
        [&] {
          Handlers h;
          h.open = [&](Out& out, ConnId id, Time now) {
            if (where == "open") last(out);
            if (where == "deadline") out.wake_at(now + 1ms);
            if (where == "post") backend.post({&id, 1}, {1, nullptr});
            opened = true;
          };
          h.bytes = [&](Out& out, Input, Time) {
            if (where == "bytes") last(out);
          };
          h.eof = [&](Out& out, Time) { where == "eof" ? last(out) : out.close(); };
          h.post = [&](Out& out, const Post&, Time) { last(out); };
          h.deadline = [&](Out& out, Time) { last(out); };
          h.drain = [&](Out& out, Time) { where == "drain" ? last(out) : out.close(); };
          return h;
        },
        Pushes::yes));
    auto peer = world->connect();
    if (where == "bytes") peer->send(pattern(1, 100));
    if (where == "eof") peer->half_close();
    if (where == "drain") {
      REQUIRE(world->eventually([&] { return opened.load(); }));
      backend.stop(kPatience);
    }
    CHECK(difference(blob_of("bye"), peer->read_all()) == "");
    peer->close();
    CHECK(all_gone(*world));
    world->finish();
    CHECK(world->watch.failed == 0);
  }
}

CONFORMANCE(after_eof, "a session may go on writing after the client's FIN", Over::one_loop) {
  auto world = make_world(target);
  Backend& backend = world->backend();
  world->start(serve(
      [&] {
        Handlers h;
        auto id = std::make_shared<ConnId>();
        h.open = [=](Out&, ConnId own, Time) { *id = own; };
        h.eof = [=](Out& out, Time now) {
          out.write(blob_of("a"));
          out.wake_at(now + 20ms);
        };
        h.deadline = [=, &backend](Out& out, Time) {
          out.write(blob_of("b"));
          backend.post({id.get(), 1}, {});
        };
        h.post = [](Out& out, const Post&, Time) {
          out.write(blob_of("c"));
          out.close();
        };
        return h;
      },
      Pushes::yes));
  for (int i = 0; i < 5; ++i) {
    auto peer = world->connect();
    CHECK(difference(blob_of("xyzabc"), peer->exchange_all(blob_of("xyz"))) == "");
  }
  CHECK(all_gone(*world));
  world->finish();
  CHECK(world->watch.failed == 0);
}

CONFORMANCE(reset_idle, "a reset ends the session with an error", Over::one_loop) {
  Ends ends;
  auto world = make_world(target);
  world->start(serve([&] {
    Handlers h;
    h.close = [&](std::error_code e) { ends.count(e); };
    return h;
  }));
  for (int i = 0; i < 20; ++i) {
    auto peer = world->connect();
    peer->exchange(pattern(1, 100), 100);
    peer->reset();
  }
  CHECK(world->eventually([&] { return ends.total() == 20; }));
  INFO("clean " << ends.clean << ", other errors " << ends.other);
  CHECK(ends.reset == 20);
  auto other = world->connect();
  CHECK(other->exchange(pattern(2, 100), 100).size() == 100);
  world->finish();
}

CONFORMANCE(reset_half_closed, "a reset after the client's FIN ends a session that is open",
            Over::all) {
  if (!target.tells_reset_after_fin()) return;
  Ends ends;
  std::atomic<int> eofs = 0;
  auto world = make_world(target);
  world->start(serve([&] {
    Handlers h;
    h.eof = [&](Out&, Time) { ++eofs; };
    h.close = [&](std::error_code e) { ends.count(e); };
    return h;
  }));
  Peers peers = world->connect_many(10);
  for (auto& peer : peers) {
    peer->exchange(pattern(1, 100), 100);
    peer->half_close();
  }
  REQUIRE(world->eventually([&] { return eofs == 10; }));
  world->pass(kMoment);
  CHECK(ends.total() == 0);
  for (auto& peer : peers) peer->reset();
  CHECK(all_gone(*world));
  INFO("clean " << ends.clean << ", other errors " << ends.other);
  CHECK(ends.reset == 10);
  world->finish();
}

CONFORMANCE(reset_at_once, "connections reset before and after their first bytes", Over::all) {
  auto world = make_world(target);
  world->start(serve_echo());
  auto witness = world->connect();
  for (std::size_t i = 0; i < 200; ++i) {
    auto peer = world->connect();
    if (i % 2 == 1) peer->send_some(pattern(i, 1 + i * 37 % 5000));
    peer->reset();
    if (i % 20 == 0) CHECK(difference(pattern(i, 9), witness->exchange(pattern(i, 9), 9)) == "");
  }
  CHECK(world->eventually([&] { return world->watch.destroyed + 1 == world->watch.accepted; }));
  CHECK(difference(pattern(1, 9), witness->exchange(pattern(1, 9), 9)) == "");
  world->finish();
}

CONFORMANCE(reset_with_replies, "a reset while replies are queued", Over::one_loop) {
  Ends ends;
  auto world = make_world(target);
  world->start(serve([&] {
    Handlers h;
    h.close = [&](std::error_code e) { ends.count(e); };
    return h;
  }));
  auto witness = world->connect();
  constexpr int kPeers = 3;
  const Blob large = pattern(1, 32 << 20);
  for (int i = 0; i < kPeers; ++i) {
    auto peer = world->connect({.receive_buffer = 4096});
    peer->send_until_stuck(large);
    peer->reset();
    CHECK(difference(pattern(2, 900), witness->exchange(pattern(2, 900), 900)) == "");
  }
  CHECK(world->eventually([&] { return ends.total() == kPeers; }));
  INFO("clean " << ends.clean << ", other errors " << ends.other);
  CHECK(ends.reset == kPeers);
  world->finish();
}

CONFORMANCE(gone_reader, "a client that closes without reading its replies", Over::one_loop) {
  Ends ends;
  auto world = make_world(target);
  world->start(serve([&] {
    Handlers h;
    h.close = [&](std::error_code e) { ends.count(e); };
    return h;
  }));
  for (int i = 0; i < 10; ++i) {
    auto peer = world->connect();
    peer->send_until_stuck(pattern(1, 200'000));
    peer->close();
  }
  CHECK(world->eventually([&] { return ends.total() == 10; }));
  CHECK(ends.other == 0);
  world->finish();
}

}  // namespace
}  // namespace echolab::test
