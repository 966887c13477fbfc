// The seam without I/O and the parts around it. All of it is warm: the lower bound of what each
// costs. What it costs in a server, with a kernel that uses the caches too, is for the benchmarks
// called seam/ to tell, which compare whole servers.
#include <fmt/format.h>

#include <array>
#include <memory>
#include <random>

#include "backends/mailbox.hpp"
#include "backends/outbox.hpp"
#include "backends/session.hpp"
#include "backends/timers.hpp"
#include "echo/echo.hpp"
#include "harness/benchmarks/entry.hpp"

namespace echolab::benchmarks {
namespace {

constexpr std::array<std::size_t, 2> kSizes{64, 4096};  // bytes, as in the default matrix

// Answers by a copy, as most protocols do.
struct Writer final : Session {
  void on_bytes(Out& out, Input in, Time) override { out.write(in); }
};
// Answers with bytes that many connections share, as a fan-out does.
struct Sharer final : Session {
  explicit Sharer(Frame f) : frame(std::move(f)) {}
  void on_bytes(Out& out, Input, Time) override { out.share(frame); }
  Frame frame;
};

Frame frame_of(std::size_t size) {
  return std::make_shared<const std::vector<std::byte>>(size);
}

// From input to effects: the virtual call, the session's work, and reading and clearing the Out,
// which a backend keeps from one call to the next.
void call(benchmark::State& state, std::unique_ptr<Session> owned, std::size_t size) {
  std::vector<std::byte> input(size);
  Session* session = owned.get();
  // The compiler must not know which session it is: it would make the virtual call a direct one and
  // then inline it, which no backend can.
  benchmark::DoNotOptimize(session);
  Out out;
  for (auto _ : state) {
    session->on_bytes(out, input, Time{});
    for (std::size_t i = 0; i < out.pieces(); ++i) {
      const Bytes bytes = out.bytes(i);
      benchmark::DoNotOptimize(bytes.data());
    }
    out.clear();
    benchmark::ClobberMemory();
  }
}

// Queued, described for a gathering send, taken by the kernel: what a connection whose peer reads
// slowly does with every answer.
void through_outbox(benchmark::State& state, const Out& out, const Outbox::Source& source) {
  constexpr std::size_t kEntries = 16;  // of one sendmsg
  Outbox outbox;
  std::array<iovec, kEntries> entries{};
  for (auto _ : state) {
    outbox.take(out, 0, source);
    benchmark::DoNotOptimize(outbox.gather(entries.data(), entries.size()));
    benchmark::DoNotOptimize(entries);
    outbox.consume(outbox.size());
    benchmark::ClobberMemory();
  }
}

void outbox_copy(benchmark::State& state, std::size_t size) {
  const std::vector<std::byte> input(size);
  Out out;
  out.forward(input);
  through_outbox(state, out, {});
}
void outbox_pin(benchmark::State& state, std::size_t size) {
  struct Buffers final : Pin::Owner {
    void pin(std::uint32_t) noexcept override { ++pins; }
    void unpin(std::uint32_t) noexcept override { --pins; }
    int pins = 0;
  };
  Buffers buffers;
  const std::vector<std::byte> input(size);
  Out out;
  out.forward(input);
  through_outbox(state, out, {&buffers, 0, size});
}
void outbox_share(benchmark::State& state, std::size_t size) {
  Out out;
  out.share(frame_of(size));
  through_outbox(state, out, {});
}

// One post to so many connections of one loop, in a loop that is awake: pushed and taken by one
// thread. What waking another thread costs is the kernel's, and in `harness doctor`.
void mailbox(benchmark::State& state, std::uint32_t receivers) {
  Mailbox box;
  std::vector<ConnId> to(receivers);
  for (std::uint32_t i = 0; i < receivers; ++i) to[i].slot = i;
  const Post post{1, frame_of(64)};
  std::vector<Mailbox::Item> taken;
  for (auto _ : state) {
    box.push(to, 0, post);
    benchmark::DoNotOptimize(box.take_wake());
    box.take(taken);
    benchmark::DoNotOptimize(taken.data());
  }
}

// A deadline moves on with every request of a connection, and which connection is next is random:
// in order of slots the heap would be in order, too.
void timers_move(benchmark::State& state, std::uint32_t connections) {
  constexpr std::size_t kOrder = 1 << 14;
  constexpr Duration kIdle = std::chrono::seconds(60);
  std::mt19937 random(1);
  std::vector<std::uint32_t> order(kOrder);
  for (auto& slot : order) slot = random() % connections;
  Timers timers;
  Time now{};
  for (std::uint32_t slot = 0; slot < connections; ++slot) timers.set(slot, now + kIdle);
  std::size_t i = 0;
  for (auto _ : state) {
    now += std::chrono::microseconds(1);
    timers.set(order[i++ % kOrder], now + kIdle);
    benchmark::DoNotOptimize(timers.next());
  }
}

// The earliest is due and gets a new deadline: what a heartbeat costs.
void timers_expire(benchmark::State& state, std::uint32_t connections) {
  Timers timers;
  Time now{};
  for (std::uint32_t slot = 0; slot < connections; ++slot) {
    timers.set(slot, now + std::chrono::microseconds(slot));
  }
  for (auto _ : state) {
    std::uint32_t slot = 0;
    now = timers.next();
    if (!timers.pop(now, slot)) return state.SkipWithError("no deadline was due");
    timers.set(slot, now + std::chrono::microseconds(connections));
    benchmark::DoNotOptimize(slot);
  }
}

}  // namespace

void add_sessions(std::vector<Entry>& out) {
  for (const std::size_t size : kSizes) {
    const auto add = [&](const char* name, auto run) {
      out.push_back({fmt::format("{}/s{}", name, size),
                     [run, size](benchmark::State& state) { run(state, size); }});
    };
    add("session/forward",
        [](benchmark::State& state, std::size_t s) { call(state, EchoService().accept(), s); });
    add("session/write",
        [](benchmark::State& state, std::size_t s) { call(state, std::make_unique<Writer>(), s); });
    add("session/share", [](benchmark::State& state, std::size_t s) {
      call(state, std::make_unique<Sharer>(frame_of(s)), s);
    });
    add("outbox/copy", outbox_copy);
    add("outbox/pin", outbox_pin);
    add("outbox/share", outbox_share);
  }
  for (const std::uint32_t connections : {1U, 1000U}) {
    const auto add = [&](const char* name, void (*run)(benchmark::State&, std::uint32_t)) {
      out.push_back({fmt::format("{}/c{}", name, connections),
                     [=](benchmark::State& state) { run(state, connections); }});
    };
    add("mailbox/post", mailbox);
    add("timers/move", timers_move);
    add("timers/expire", timers_expire);
  }
}

}  // namespace echolab::benchmarks
