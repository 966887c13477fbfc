// Before the load generator's first slice: connections, and proof that their bytes are right.
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <system_error>

#include "harness/client_socket.hpp"
#include "harness/load_impl.hpp"
#include "harness/units.hpp"

namespace echolab::harness {
namespace {

using Kind = LoadError::Kind;

// Connections that the server may not have accepted yet. Many listen with a backlog of 128; beyond
// it the kernel drops connects, which come back only a second later.
constexpr unsigned kUnaccepted = 64;

// Sequences that requests never reach, so that these bytes are no request's.
constexpr std::uint64_t kVerifySequence = (1ULL << Pattern::kSequenceBits) - 1;
constexpr std::uint64_t kHelloSequence = kVerifySequence - 1;

// What verify() writes, in bytes: pairs of writes, both before the echo of the first is awaited.
// Together: a byte alone, a few, sizes around 64 B and 4 KiB, and one beyond 64 KiB, split
// unevenly. The last pair is for the first connections only: a thousand times 64 KiB would take too
// long.
constexpr std::array<std::size_t, 10> kWrites = {1, 2, 62, 1, 64, 3, 4095, 2, 1, 65536};
constexpr std::size_t kShortWrites = kWrites.size() - 2;
constexpr std::size_t kLongVerified = 16;  // connections

// How far the verification of one connection is.
struct Verification {
  std::size_t writes;             // of kWrites, to be made
  std::size_t write = 0;          // the next or current one
  std::size_t left = kWrites[0];  // bytes of it
  std::size_t sent = 0;
  std::size_t received = 0;

  [[nodiscard]] bool done() const { return write == writes && received == sent; }
};

}  // namespace

void Load::Impl::connect(Nanos timeout, unsigned up_to) {
  if (connected == 0) {
    allow_connections(shape.connections);
    epoll = Descriptor(::epoll_create1(EPOLL_CLOEXEC));
    if (!epoll) throw std::system_error(errno, std::generic_category(), "epoll_create1");
    connections = std::vector<Connection>(shape.connections);
  }
  const unsigned goal = std::min(up_to, shape.connections);
  enum class Stage : std::uint8_t { connecting, greeted, ready };
  std::vector<Stage> stages(shape.connections, Stage::connecting);
  std::fill_n(stages.begin(), connected, Stage::ready);
  setup_state = [&](const Connection& c) -> std::string {
    const Stage stage = stages[static_cast<std::size_t>(&c - connections.data())];
    return stage == Stage::ready ? "it had echoed its first byte, and others were being connected"
                                 : "its first byte was sent and not echoed";
  };
  std::uint64_t deadline = now_ns() + static_cast<std::uint64_t>(timeout.count());
  unsigned begun = connected;
  unsigned& ready = connected;
  while (ready < goal) {
    for (; begun < goal && begun - ready < kUnaccepted; ++begun) {
      Connection& c = connections[begun];
      c.fd = begin_connect(endpoint, begun + 1, shape.connections);
      epoll_event event{};
      event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
      event.data.u32 = begun;
      if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, c.fd.get(), &event) != 0) {
        throw std::system_error(errno, std::generic_category(), "epoll_ctl");
      }
    }
    const int n = sleep(std::min(patience, static_cast<std::uint64_t>(kNap.count())));
    for (int i = 0; i < n; ++i) {
      const std::uint32_t number = events[static_cast<std::size_t>(i)].data.u32;
      Connection& c = connections[number];
      const std::uint64_t hello = key(c, kHelloSequence);
      if (stages[number] == Stage::connecting) {
        const int error = socket_error(c.fd.get());
        if (error != 0) throw connect_error(endpoint, number + 1, shape.connections, error);
        out[0] = pattern.at(hello, 0);
        if (send_some(c, 1) == 1) stages[number] = Stage::greeted;
        continue;
      }
      const std::size_t got = receive_some(c);
      if (got == 0) continue;
      const std::size_t expected = stages[number] == Stage::ready ? 0 : 1;
      if (pattern.check(in.get(), hello, 0, expected) != expected) {
        throw mismatch(c, "first byte", hello, 0, in[0], 1);
      }
      if (got > expected) {
        throw extra(c, got - expected, "after the echo of the first byte");
      }
      stages[number] = Stage::ready;
      ++ready;
      deadline = now_ns() + static_cast<std::uint64_t>(timeout.count());
    }
    if (interrupted()) throw LoadError(Kind::interrupted, "interrupted while connecting");
    if (ready < goal && now_ns() > deadline) {
      throw LoadError(
          Kind::timeout,
          fmt::format("{}: {} of {} connections have echoed a first byte, and none more within {}",
                      endpoint.text, ready, shape.connections, format_duration(timeout)));
    }
  }
  setup_state = nullptr;
}

void Load::Impl::verify(unsigned at_most) {
  std::vector<Verification> all;
  for (std::size_t i = 0; i < std::min(at_most, shape.connections); ++i) {
    all.push_back({i < kLongVerified ? kWrites.size() : kShortWrites});
  }
  std::size_t done = 0;

  const auto write_on = [&](Connection& c, Verification& v) {
    while (v.write < v.writes) {
      const bool pair_begins = v.write % 2 == 0 && v.left == kWrites[v.write];
      if (pair_begins && v.received < v.sent) return;  // the pair before is not answered yet
      pattern.write(out.get(), key(c, kVerifySequence), v.sent, v.left);
      const std::size_t n = send_some(c, v.left);
      v.sent += n;
      v.left -= n;
      if (v.left > 0) return;  // goes on with an edge of EPOLLOUT
      if (++v.write < v.writes) v.left = kWrites[v.write];
    }
  };
  const auto read_on = [&](Connection& c, Verification& v) {
    for (std::size_t n = receive_some(c); n > 0; n = receive_some(c)) {
      silent_since = now_ns();
      const std::uint64_t k = key(c, kVerifySequence);
      const std::size_t expected = std::min(n, v.sent - v.received);
      const std::size_t good = pattern.check(in.get(), k, v.received, expected);
      if (good < expected) {
        throw mismatch(c, "verification", k, v.received + good, in[good], v.sent);
      }
      v.received += expected;
      if (n > expected) {
        throw extra(c, n - expected, "in the verification");
      }
    }
  };

  setup_state = [&](const Connection& c) -> std::string {
    const auto number = static_cast<std::size_t>(&c - connections.data());
    if (number >= all.size()) return "others were being verified";
    return fmt::format("in the verification, {} of {} bytes echoed", all[number].received,
                       all[number].sent);
  };
  silent_since = now_ns();
  for (std::size_t i = 0; i < all.size(); ++i) write_on(connections[i], all[i]);
  while (done < all.size()) {
    const int n = sleep(std::min(patience, static_cast<std::uint64_t>(kNap.count())));
    for (int i = 0; i < n; ++i) {
      const std::uint32_t number = events[static_cast<std::size_t>(i)].data.u32;
      Connection& c = connections[number];
      Verification none{0};
      Verification& v = number < all.size() ? all[number] : none;
      const bool was_done = v.done();
      read_on(c, v);
      if (number < all.size()) write_on(c, v);
      if (!was_done && v.done()) ++done;
    }
    if (interrupted()) throw LoadError(Kind::interrupted, "interrupted while verifying");
    const std::uint64_t silence = now_ns() - silent_since;
    if (done < all.size() && silence > patience) {
      const auto open =
          std::find_if(all.begin(), all.end(), [](const Verification& v) { return !v.done(); });
      throw LoadError(
          Kind::timeout,
          fmt::format("{}, verification: no byte from the server for {}; {} of {} bytes received",
                      name(connections[static_cast<std::size_t>(open - all.begin())]),
                      format_duration(Nanos(silence)), open->received, open->sent));
    }
  }
  setup_state = nullptr;
}

}  // namespace echolab::harness
