// Every byte arrives, once and in order, however it is cut and by whichever effect it is sent.
#include <fmt/format.h>
#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "backends/sockets.hpp"
#include "tests/skip.hpp"
#include "tests/world.hpp"

namespace echolab::test {
namespace {

constexpr std::array<std::size_t, 14> kSizes = {1,    2,    63,    64,    512,   1460,    4095,
                                                4096, 4097, 16384, 65535, 65537, 1 << 20, 8 << 20};

Frame copy_of(Bytes bytes) {
  return frame_of(Blob(bytes.begin(), bytes.end()));
}

// Echoes every size on one connection, and again on a fresh one.
void echo_every_size(const Target& target, const std::function<Handlers()>& make) {
  auto world = make_world(target);
  world->start(serve(make));
  auto peer = world->connect();
  for (const std::size_t size : kSizes) {
    const Blob request = pattern(size, size);
    CHECK(difference(request, peer->exchange(request, size)) == "");
  }
  auto other = world->connect();
  const Blob request = pattern(7, 3 << 20);
  CHECK(difference(request, other->exchange_all(request)) == "");
  CHECK(peer->exchange_all({}).empty());
  world->finish();
  const Stats stats = world->backend().stats();
  CHECK(stats.get(Count::bytes_in) == stats.get(Count::bytes_out));
}

CONFORMANCE(echo_forward, "bytes intact by forward from 1 B to 8 MiB", Over::one_loop) {
  echo_every_size(target, [] { return Handlers{}; });
}

CONFORMANCE(echo_write, "bytes intact by write from 1 B to 8 MiB", Over::one_loop) {
  echo_every_size(target, [] {
    Handlers h;
    h.bytes = [](Out& out, Input in, Time) { out.write(in); };
    return h;
  });
}

CONFORMANCE(echo_share, "bytes intact by share from 1 B to 8 MiB", Over::one_loop) {
  echo_every_size(target, [] {
    Handlers h;
    h.bytes = [](Out& out, Input in, Time) { out.share(copy_of(in)); };
    return h;
  });
}

CONFORMANCE(echo_mixed, "bytes intact by forward and write and share mixed in one callback",
            Over::one_loop) {
  // Each callback cuts its input in six and takes the three ways in an order that turns.
  echo_every_size(target, [] {
    Handlers h;
    h.bytes = [turn = 0U](Out& out, Input in, Time) mutable {
      ++turn;
      for (std::size_t i = 0; i < 6; ++i) {
        const std::size_t from = in.size() * i / 6;
        const Bytes part = in.subspan(from, in.size() * (i + 1) / 6 - from);
        switch ((turn * 5 + i * (1 + turn % 2)) % 3) {
          case 0:
            out.forward(part);
            break;
          case 1:
            out.write(part);
            break;
          default:
            out.share(copy_of(part));
            break;
        }
      }
    };
    return h;
  });
}

CONFORMANCE(many_pieces, "one callback may have more pieces than one sendmsg takes",
            Over::one_loop) {
  // Byte by byte, alternately forwarded and written: thousands of pieces, and IOV_MAX is 1024.
  auto world = make_world(target);
  world->start(serve([] {
    Handlers h;
    h.bytes = [](Out& out, Input in, Time) {
      for (std::size_t i = 0; i < in.size(); ++i) {
        i % 2 == 0 ? out.forward(in.subspan(i, 1)) : out.write(in.subspan(i, 1));
      }
    };
    return h;
  }));
  auto peer = world->connect();
  const Blob request = pattern(11, scaled(64, 8) * 1024);
  CHECK(difference(request, peer->exchange(request, request.size())) == "");
  world->finish();
}

CONFORMANCE(changed_in_place, "input may be changed in place before it is forwarded",
            Over::one_loop) {
  constexpr std::byte kMask{0x5a};
  auto world = make_world(target);
  world->start(serve([] {
    Handlers h;
    h.bytes = [](Out& out, Input in, Time) {
      for (std::byte& b : in) b ^= kMask;
      out.forward(in);
    };
    return h;
  }));
  auto peer = world->connect();
  const Blob request = pattern(3, 1 << 20);
  Blob expected = request;
  for (std::byte& b : expected) b ^= kMask;
  CHECK(difference(expected, peer->exchange(request, request.size())) == "");
  world->finish();
}

CONFORMANCE(out_of_order, "parts of the input may be forwarded in any order and more than once",
            Over::one_loop) {
  // The reply to n bytes is: last byte, all, first byte. One request at a time and small, yet TCP
  // may still cut it, so the session reports how: every chunk is answered after its length.
  auto world = make_world(target);
  world->start(serve([] {
    Handlers h;
    h.bytes = [](Out& out, Input in, Time) {
      const auto n = static_cast<std::byte>(in.size());
      out.write({&n, 1});
      out.forward(in.last(1));
      out.forward(in);
      out.forward(in.first(1));
    };
    return h;
  }));
  auto peer = world->connect();
  for (std::size_t round = 0; round < 200; ++round) {
    const Blob request = pattern(round, 1 + round % 200);
    peer->send(request);
    for (std::size_t done = 0; done < request.size();) {
      const std::size_t n = std::to_integer<std::size_t>(peer->read(1)[0]);
      REQUIRE(n > 0);
      REQUIRE(done + n <= request.size());
      const Bytes chunk = Bytes(request).subspan(done, n);
      Blob expected{chunk.back()};
      expected.insert(expected.end(), chunk.begin(), chunk.end());
      expected.push_back(chunk.front());
      REQUIRE(difference(expected, peer->read(n + 2)) == "");
      done += n;
    }
  }
  world->finish();
}

CONFORMANCE(split_everywhere, "a message may be split at every boundary", Over::one_loop) {
  auto world = make_world(target);
  world->start(serve_echo());
  auto peer = world->connect();
  const std::size_t size = 96;
  for (std::size_t at = 1; at < size; ++at) {
    const Blob request = pattern(at, size);
    const Bytes head = Bytes(request).first(at);
    const Bytes tail = Bytes(request).subspan(at);
    // Waiting for the head's reply proves that the head was received on its own.
    REQUIRE(difference(head, peer->exchange(head, head.size())) == "");
    REQUIRE(difference(tail, peer->exchange(tail, tail.size())) == "");
  }
  const Blob drops = pattern(5, 3000);
  for (std::size_t i = 0; i < drops.size(); ++i) peer->send(Bytes(drops).subspan(i, 1));
  CHECK(difference(drops, peer->read(drops.size())) == "");
  world->finish();
}

CONFORMANCE(pipelined, "pipelined requests are all answered in order", Over::one_loop) {
  auto world = make_world(target);
  world->start(serve_echo());
  Peers peers = world->connect_many(8);
  for (std::size_t round = 0; round < 20; ++round) {
    for (std::size_t i = 0; i < peers.size(); ++i) {
      for (std::size_t k = 0; k < 16; ++k)
        peers[i]->send(pattern(i * 1000 + round * 16 + k, 100 + k));
    }
    for (std::size_t i = 0; i < peers.size(); ++i) {
      for (std::size_t k = 0; k < 16; ++k) {
        const Blob expected = pattern(i * 1000 + round * 16 + k, 100 + k);
        REQUIRE(difference(expected, peers[i]->read(expected.size())) == "");
      }
    }
  }
  world->finish();
}

CONFORMANCE(deep_and_large, "64 KiB messages four deep on many connections", Over::all) {
  auto world = make_world(target);
  world->start(serve_echo());
  Peers peers = world->connect_many(16);
  for (std::size_t round = 0; round < 5; ++round) {
    std::vector<Blob> requests;
    for (std::size_t i = 0; i < peers.size(); ++i) {
      requests.push_back(pattern(round * 100 + i, 4UL * 64 * 1024));
    }
    const std::vector<Blob> replies = exchange_on_all(peers, requests);
    for (std::size_t i = 0; i < peers.size(); ++i) CHECK(difference(requests[i], replies[i]) == "");
  }
  world->finish();
}

CONFORMANCE(tiny_buffers, "a peer with a tiny receive buffer gets every byte", Over::one_loop) {
  auto world = make_world(target);
  world->start(serve_echo());
  auto peer = world->connect({.receive_buffer = 2048});
  const Blob request = pattern(9, 512 * 1024);
  CHECK(difference(request, peer->exchange_all(request)) == "");
  world->finish();
}

CONFORMANCE(server_first, "a session may speak first and at the end", Over::one_loop) {
  const Blob hello = pattern(1, 300'000);
  const Blob bye = pattern(2, 200'000);
  auto world = make_world(target);
  world->start(serve([&] {
    Handlers h;
    h.open = [&](Out& out, ConnId, Time) { out.write(hello); };
    h.eof = [&](Out& out, Time) {
      out.share(frame_of(bye));
      out.close();
    };
    return h;
  }));
  const Blob request = pattern(4, 100'000);
  Blob expected = hello;
  expected.insert(expected.end(), request.begin(), request.end());
  expected.insert(expected.end(), bye.begin(), bye.end());
  for (int i = 0; i < 5; ++i) {
    auto peer = world->connect();
    CHECK(difference(expected, peer->exchange_all(request)) == "");
  }
  world->finish();
}

CONFORMANCE(more_than_asked, "one byte may be answered by megabytes", Over::one_loop) {
  const Blob large = pattern(6, 3 << 20);
  const Frame shared = frame_of(pattern(8, 3 << 20));
  auto world = make_world(target);
  world->start(serve([&] {
    Handlers h;
    h.bytes = [&](Out& out, Input in, Time) {
      for (std::size_t i = 0; i < in.size(); ++i) {
        out.write(large);
        out.share(shared);
        out.forward(in.subspan(i, 1));
      }
    };
    return h;
  }));
  auto peer = world->connect();
  for (int i = 0; i < 3; ++i) {
    const Blob request = pattern(20 + static_cast<std::uint64_t>(i), 1);
    const Blob reply = peer->exchange(request, large.size() + shared->size() + 1);
    CHECK(difference(large, Bytes(reply).first(large.size())) == "");
    CHECK(difference(*shared, Bytes(reply).subspan(large.size(), shared->size())) == "");
    CHECK(reply.back() == request[0]);
  }
  world->finish();
}

CONFORMANCE(ipv6, "IPv6", Over::one_loop) {
  WorldOptions options;
  options.host = "::1";
  std::unique_ptr<World> world;
  try {
    world = make_world(target, options);
  } catch (const std::system_error& e) {
    if (e.code() != std::errc::address_not_available &&
        e.code() != std::errc::address_family_not_supported)
      throw;
    skip(fmt::format("no IPv6 here: {}", e.what()));
    SUCCEED();
    return;
  }
  world->start(serve_echo());
  auto peer = world->connect();
  const Blob request = pattern(1, 100'000);
  CHECK(difference(request, peer->exchange_all(request)) == "");
  world->finish();
}

CONFORMANCE(silent_sends, "sends are silent only where the kernel can leave success out",
            Over::one_loop) {
  const std::string_view spec = target.spec;
  if (!spec.starts_with("io_uring")) return;
  io_uring_params params{};
  const Fd ring(static_cast<int>(syscall(SYS_io_uring_setup, 2, &params)));
  REQUIRE(ring);
  auto world = make_world(target);
  world->start(serve_echo());
  CHECK(world->connect()->exchange_all(pattern(1, 100)).size() == 100);
  world->finish();
  const Stats stats = world->backend().stats();
  const auto feature = std::find_if(stats.features.begin(), stats.features.end(),
                                    [](const Feature& f) { return f.name == "cqe_skip"; });
  REQUIRE(feature != stats.features.end());
  CHECK(feature->asked == (spec != "io_uring:sqpoll"));
  const bool can = (params.features & IORING_FEAT_CQE_SKIP) != 0;
  CHECK(feature->granted == (feature->asked && can));
}

}  // namespace
}  // namespace echolab::test
