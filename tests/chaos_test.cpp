// A client that does everything wrong at random, against every backend: odd sizes, one-byte writes,
// slow reads, tiny buffers, half-closes, resets, churn. Whatever arrives must be right.
//
// The seed is random, printed, and taken from ECHOLAB_SEED to replay. In the simulator the replay
// is exact; over TCP the client does the same again and only the kernel's timing differs.
#include <cstdlib>
#include <iostream>
#include <random>

#include "tests/sim_backend.hpp"
#include "tests/world.hpp"

namespace echolab::test {
namespace {

constexpr std::size_t kClients = 12;                    // at the same time
constexpr std::size_t kMostInFlight = 2 * 1024 * 1024;  // bytes a client may be ahead of its reads

// Echoes in all three ways by turns, and keeps itself busy with deadlines and posts.
std::unique_ptr<Service> restless_echo(Backend& backend) {
  return serve(
      [&backend] {
        Handlers h;
        auto own = std::make_shared<ConnId>();
        h.open = [own](Out& out, ConnId id, Time now) {
          *own = id;
          out.wake_at(now + 1ms);
        };
        h.bytes = [own, &backend, n = 0U](Out& out, Input in, Time now) mutable {
          const Bytes head = Bytes(in).first(in.size() / 2);
          const Bytes tail = Bytes(in).subspan(in.size() / 2);
          switch (++n % 4) {
            case 0:
              out.forward(head);
              out.write(tail);
              break;
            case 1:
              out.share(frame_of(Blob(head.begin(), head.end())));
              out.forward(tail);
              break;
            case 2:
              out.write(in);
              break;
            default:
              out.forward(in);
              break;
          }
          if (n % 3 == 0) out.wake_at(now + 500us);
          if (n % 5 == 0) backend.post({own.get(), 1}, {n, nullptr});
        };
        h.deadline = [n = 0](Out& out, Time now) mutable {
          if (++n < 20) out.wake_at(now + n * 1ms);
        };
        return h;
      },
      Pushes::yes);
}

class Chaos {
 public:
  Chaos(World& world, std::uint64_t seed) : world_(world), random_(seed) {}

  void run(std::size_t operations) {
    for (std::size_t i = 0; i < operations; ++i) step();
    while (!clients_.empty()) end_in_order(clients_.size() - 1);
  }

 private:
  struct Client {
    std::unique_ptr<Peer> peer;
    std::uint64_t pattern = 0;
    std::size_t sent = 0;
    std::size_t received = 0;
  };

  std::size_t choose(std::size_t n) { return random_() % n; }

  void step() {
    if (clients_.empty() || (clients_.size() < kClients && choose(10) == 0)) {
      constexpr int kBuffers[] = {0, 0, 2048, 16'384};
      clients_.push_back({world_.connect({.receive_buffer = kBuffers[choose(4)]}), ++made_, 0, 0});
      return;
    }
    const std::size_t at = choose(clients_.size());
    const std::size_t what = choose(100);
    if (what < 30) {
      send(clients_[at], 1 + choose(100));
    } else if (what < 45) {
      send(clients_[at], 1 + choose(64 * 1024));
    } else if (what < 55) {
      for (std::size_t n = 1 + choose(20); n > 0; --n) send(clients_[at], 1);
    } else if (what < 75) {
      read(clients_[at], 1 + choose(200));
    } else if (what < 90) {
      read(clients_[at], 1 + choose(256 * 1024));
    } else if (what < 94) {
      end_in_order(at);
    } else if (what < 96) {
      clients_[at].peer->reset();
      drop(at);
    } else if (what < 98) {
      clients_[at].peer->close();
      drop(at);
    } else {
      world_.pass(std::chrono::microseconds(choose(2000)));
    }
  }

  void send(Client& c, std::size_t n) {
    if (c.sent - c.received + n > kMostInFlight) return;
    c.sent += c.peer->send_some(pattern(c.pattern, n, c.sent));
    REQUIRE(c.peer->state() == Peer::State::open);
  }
  void read(Client& c, std::size_t most) {
    const Blob got = c.peer->read_some(most);
    REQUIRE(c.peer->state() == Peer::State::open);
    check(c, got);
  }
  void check(Client& c, const Blob& got) {
    REQUIRE(difference(pattern(c.pattern, got.size(), c.received), got) == "");
    c.received += got.size();
    REQUIRE(c.received <= c.sent);
  }
  // Everything that was sent comes back, and then EOF.
  void end_in_order(std::size_t at) {
    Client& c = clients_[at];
    c.peer->half_close();
    check(c, c.peer->read_all());
    REQUIRE(c.received == c.sent);
    drop(at);
  }
  void drop(std::size_t at) {
    std::swap(clients_[at], clients_.back());
    clients_.pop_back();
  }

  World& world_;
  std::mt19937_64 random_;
  std::vector<Client> clients_;
  std::uint64_t made_ = 0;
};

WorldOptions limits_for(std::uint64_t seed) {
  WorldOptions options;
  options.limits.high_water = 4096ULL << (seed % 7);
  options.limits.low_water = options.limits.high_water / (1 + seed % 5);
  options.limits.pinned = seed % 3 == 0 ? 0 : 32 * 1024;
  return options;
}

void run_chaos(World& world, std::uint64_t seed, std::size_t operations) {
  world.start(restless_echo(world.backend()));
  Chaos(world, seed).run(operations);
  CHECK(world.eventually([&] { return world.watch.destroyed == world.watch.accepted; }));
  world.finish();
}

CONFORMANCE(chaos, "chaos", Over::all) {
  const bool given = std::getenv("ECHOLAB_SEED") != nullptr;
  const std::uint64_t s = given ? seed() : std::random_device()();
  std::cout << "ECHOLAB_SEED=" << s << " replays this\n";
  CAPTURE(s);
  auto world =
      target.simulated() ? make_sim_world(s, limits_for(s)) : make_world(target, limits_for(s));
  run_chaos(*world, s, scaled(6000, 2000));
}

TEST_CASE("sim - chaos over many seeds", "[conformance]") {
  for (std::uint64_t s = 1; s <= scaled(200, 40); ++s) {
    CAPTURE(s);
    auto world = make_sim_world(s, limits_for(s));
    run_chaos(*world, s, 400);
  }
}

TEST_CASE("sim - the same seed gives the same run", "[conformance]") {
  const auto trace_of = [](std::uint64_t s) {
    auto world = make_sim_world(s);
    run_chaos(*world, 5, 500);
    return dynamic_cast<SimBackend&>(world->backend()).trace();
  };
  CHECK(trace_of(1) == trace_of(1));
  CHECK(trace_of(2) == trace_of(2));
  CHECK(trace_of(1) != trace_of(2));
}

}  // namespace
}  // namespace echolab::test
