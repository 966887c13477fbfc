// Sessions that abort: the peer gets a reset, and nothing is kept for it.
#include <algorithm>
#include <atomic>
#include <mutex>

#include "tests/world.hpp"

namespace echolab::test {
namespace {

// A socket tells of its reset once, so whoever asks again must not read on.
Blob read_until_reset(Peer& peer) {
  Blob all;
  while (peer.state() == Peer::State::open) {
    const Blob got = peer.read_some(1 << 20);
    all.insert(all.end(), got.begin(), got.end());
    if (got.empty() && peer.state() == Peer::State::open)
      REQUIRE(peer.wait(true, false, kPatience));
  }
  CHECK(peer.state() == Peer::State::reset);
  return all;
}

CONFORMANCE(abort_everywhere, "each callback may abort", Over::one_loop) {
  for (const std::string where :
       {"open", "bytes", "eof", "post", "deadline", "reply", "room", "drain"}) {
    CAPTURE(where);
    auto world = make_world(target);
    Backend& backend = world->backend();
    TestUpstream& upstream = world->upstream();
    std::atomic<bool> opened = false;
    std::atomic<int> aborted = 0;
    const auto last = [](Out& out) {
      out.write(blob_of("never sent"));
      out.wake_at(Time{});
      out.close();
      out.abort();
    };
    world->start(serve(
        [&] {
          Handlers h;
          h.open = [&](Out& out, ConnId id, Time now) {
            if (where == "open") last(out);
            if (where == "deadline") out.wake_at(now + 1ms);
            if (where == "post") backend.post({&id, 1}, {1, nullptr});
            if (where == "room") out.await_room();
            if (where == "reply") out.call(upstream.address(), 1, pattern(1, 1), 1, kPatience);
            opened = true;
          };
          h.bytes = [&](Out& out, Input, Time) { last(out); };
          h.eof = [&](Out& out, Time) { last(out); };
          h.post = [&](Out& out, const Post&, Time) { last(out); };
          h.deadline = [&](Out& out, Time) { last(out); };
          h.reply = [&](Out& out, const Reply&, Time) { last(out); };
          h.room = [&](Out& out, Time) { last(out); };
          h.drain = [&](Out& out, Time) { last(out); };
          h.close = [&](std::error_code error) {
            if (error == std::errc::connection_aborted) ++aborted;
          };
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
    CHECK(read_until_reset(*peer).empty());
    CHECK(world->eventually([&] { return aborted == 1; }));
    world->finish();
  }
}

CONFORMANCE(abort_frees, "abort lets go of megabytes for a client that never reads", Over::all) {
  constexpr std::size_t kPeers = 4;
  const Frame frame = frame_of(pattern(1, 12 << 20));
  std::atomic<int> aborted = 0;
  std::mutex mutex;
  std::vector<ConnId> ids;
  auto world = make_world(target);
  Backend& backend = world->backend();
  world->start(serve(
      [&] {
        Handlers h;
        h.open = [&](Out& out, ConnId id, Time) {
          out.share(frame);
          const std::scoped_lock lock(mutex);
          ids.push_back(id);
        };
        h.post = [](Out& out, const Post&, Time) {
          out.write(blob_of("never sent"));
          out.abort();
        };
        h.close = [&](std::error_code error) {
          if (error == std::errc::connection_aborted) ++aborted;
        };
        return h;
      },
      Pushes::yes));
  Peers peers;
  for (std::size_t i = 0; i < kPeers; ++i)
    peers.push_back(world->connect({.receive_buffer = 4096}));
  for (auto& peer : peers) peer->read(1);
  // The simulator copies.
  if (!target.simulated()) {
    CHECK(world->eventually([&] { return frame.use_count() == 1 + static_cast<long>(kPeers); }));
  }
  {
    const std::scoped_lock lock(mutex);
    REQUIRE(ids.size() == kPeers);
    backend.post(ids, {1, nullptr});
  }
  CHECK(world->eventually([&] { return aborted == kPeers; }));
  CHECK(world->eventually([&] { return frame.use_count() == 1; }));
  for (auto& peer : peers) CHECK(read_until_reset(*peer).size() < frame->size());
  // Slots and descriptors are there for others again.
  CHECK(world->connect()->read(100).size() == 100);
  world->finish();
}

CONFORMANCE(abort_under_load, "aborts in the midst of traffic harm nobody else", Over::all) {
  const std::size_t n = scaled(200, 60);
  auto world = make_world(target);
  world->start(serve([] {
    Handlers h;
    h.bytes = [](Out& out, Input in, Time) {
      const bool asked = std::find(in.begin(), in.end(), std::byte{'a'}) != in.end();
      asked ? out.abort() : out.forward(in);
    };
    return h;
  }));
  auto witness = world->connect();
  for (std::size_t i = 0; i < n; ++i) {
    auto peer = world->connect();
    if (i % 3 == 1) peer->send_some(blob_of("xxxxxxxx"));
    peer->send(blob_of("a"));
    if (i % 3 == 2) peer->send_some(blob_of("more"));
    read_until_reset(*peer);
    if (i % 10 != 0) continue;
    const Blob request(300, std::byte{'w'});
    CHECK(difference(request, witness->exchange(request, request.size())) == "");
  }
  CHECK(world->eventually([&] { return world->watch.destroyed + 1 == world->watch.accepted; }));
  world->finish();
}

}  // namespace
}  // namespace echolab::test
