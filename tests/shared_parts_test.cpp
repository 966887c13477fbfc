// The parts that all backends share, each against a simpler model of itself.
#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <random>
#include <thread>

#include "backends/connections.hpp"
#include "backends/loops.hpp"
#include "backends/mailbox.hpp"
#include "backends/outbox.hpp"
#include "backends/sockets.hpp"
#include "backends/timers.hpp"
#include "backends/upstreams.hpp"
#include "tests/world.hpp"

namespace echolab::test {
namespace {

Blob bytes_of(const Out& out) {
  Blob all;
  for (std::size_t i = 0; i < out.pieces(); ++i) {
    const Bytes piece = out.bytes(i);
    all.insert(all.end(), piece.begin(), piece.end());
  }
  return all;
}

// Takes everything out of an outbox in sends of random size.
Blob drain(Outbox& outbox, std::mt19937_64& random) {
  Blob all;
  while (!outbox.empty()) {
    std::array<iovec, 5> entries{};
    const std::size_t n = outbox.gather(entries.data(), 1 + random() % entries.size());
    std::size_t offered = 0;
    for (std::size_t i = 0; i < n; ++i) offered += entries[i].iov_len;
    std::size_t take = 1 + random() % offered;
    const std::size_t taken = take;
    for (std::size_t i = 0; i < n && take > 0; ++i) {
      const std::size_t part = std::min(take, entries[i].iov_len);
      const auto* data = static_cast<const std::byte*>(entries[i].iov_base);
      all.insert(all.end(), data, data + part);
      take -= part;
    }
    outbox.consume(taken);
  }
  return all;
}

struct CountingOwner : Pin::Owner {
  void pin(std::uint32_t) noexcept override { ++pins; }
  void unpin(std::uint32_t) noexcept override { --pins; }
  int pins = 0;
};

TEST_CASE("out - pieces keep their order and their bytes") {
  Out out;
  CHECK(out.empty());
  Blob input = pattern(1, 100);
  out.write(Bytes(input).first(10));
  out.write(Bytes(input).subspan(10, 10));
  out.forward(Bytes(input).subspan(20, 30));
  out.write({});
  out.forward({});
  out.share(nullptr);
  out.share(frame_of({}));
  out.write(Bytes(input).subspan(50, 5));
  out.share(frame_of(Blob(input.begin() + 55, input.end())));
  CHECK(out.total() == 100);
  CHECK(out.pieces() == 4);  // the first two writes are one
  CHECK(difference(input, bytes_of(out)) == "");
  CHECK_FALSE(out.deadline());
  out.wake_at(kNever);
  out.close();
  CHECK(out.deadline() == kNever);
  CHECK(out.closing());
  out.clear();
  CHECK(out.empty());
  CHECK(out.total() == 0);
}

TEST_CASE("outbox - whatever is queued comes out in order") {
  std::mt19937_64 random(seed());
  CountingOwner owner;
  for (int round = 0; round < 300; ++round) {
    const Blob input = pattern(random(), 4096);
    Blob expected;
    Blob got;
    Outbox outbox;
    for (int turn = 0; turn < 8; ++turn) {
      Out out;
      for (int i = 0; i < 5; ++i) {
        const std::size_t from = random() % input.size();
        const Bytes part = Bytes(input).subspan(from, random() % (input.size() - from));
        switch (random() % 3) {
          case 0:
            out.write(part);
            break;
          case 1:
            out.forward(part);
            break;
          default:
            out.share(frame_of(Blob(part.begin(), part.end())));
            break;
        }
      }
      const Blob all = bytes_of(out);
      const std::size_t skip = out.total() == 0 ? 0 : random() % (out.total() + 1);
      expected.insert(expected.end(), all.begin() + static_cast<std::ptrdiff_t>(skip), all.end());
      const std::size_t before = outbox.size();
      const std::size_t may_pin = random() % 3 * 3000;
      const std::size_t copied =
          outbox.take(out, skip, {random() % 2 == 0 ? &owner : nullptr, 1, may_pin});
      CHECK(copied <= out.total() - skip);
      CHECK(outbox.size() == before + out.total() - skip);
      if (random() % 3 == 0) {
        const Blob some = drain(outbox, random);
        got.insert(got.end(), some.begin(), some.end());
        CHECK(owner.pins == 0);
      }
    }
    const Blob rest = drain(outbox, random);
    got.insert(got.end(), rest.begin(), rest.end());
    REQUIRE(difference(expected, got) == "");
    REQUIRE(outbox.size() == 0);
    REQUIRE(owner.pins == 0);
  }
}

TEST_CASE("outbox - what a send was told of stays where it is while more is queued") {
  Outbox outbox;
  Out out;
  out.write(pattern(1, 100));
  outbox.take(out, 0);
  iovec first{};
  REQUIRE(outbox.gather(&first, 1) == 1);
  for (int i = 0; i < 200; ++i) outbox.take(out, 0);
  const auto* data = static_cast<const std::byte*>(first.iov_base);
  CHECK(difference(pattern(1, 100), Bytes(data, first.iov_len)) == "");
  CHECK(first.iov_len == 100);
}

TEST_CASE("outbox - pins end with the outbox and with clear") {
  CountingOwner owner;
  const Blob input = pattern(1, 1000);
  Out out;
  out.forward(Bytes(input).first(10));
  out.forward(Bytes(input).subspan(500, 10));
  {
    Outbox outbox;
    outbox.take(out, 0, {&owner, 3, 1000});
    CHECK(owner.pins == 2);
    outbox.clear();
    CHECK(owner.pins == 0);
    CHECK(outbox.empty());
    outbox.take(out, 5, {&owner, 3, 15});
    CHECK(owner.pins == 2);
  }
  CHECK(owner.pins == 0);
  Outbox copies;
  CHECK(copies.take(out, 0, {&owner, 3, 9}) == 20);
  CHECK(owner.pins == 0);
}

TEST_CASE("outbox - adjacent buffers are pinned each") {
  // Buffers of a ring lie side by side: the end of one and the start of the next look like one
  // piece and are not.
  struct Owner final : Pin::Owner {
    void pin(std::uint32_t buffer) noexcept override { ++pins[buffer]; }
    void unpin(std::uint32_t buffer) noexcept override { --pins[buffer]; }
    std::array<int, 2> pins{};
  } owner;
  const Blob memory = pattern(1, 200);
  Outbox outbox;
  for (const std::uint32_t buffer : {0U, 1U}) {
    Out out;
    out.forward(Bytes(memory).subspan(buffer * 100UL, 50));
    out.forward(Bytes(memory).subspan(buffer * 100UL + 50, 50));
    outbox.take(out, 0, {&owner, buffer, 1000});
  }
  CHECK(owner.pins[0] > 0);
  CHECK(owner.pins[1] > 0);
  outbox.consume(100);
  CHECK(owner.pins[0] == 0);
  CHECK(owner.pins[1] > 0);
  outbox.consume(100);
  CHECK(owner.pins[1] == 0);
}

TEST_CASE("timers - like a sorted list") {
  std::mt19937_64 random(seed());
  Timers timers;
  std::map<std::uint32_t, Time> model;
  CHECK(timers.next() == kNever);
  for (int i = 0; i < 20'000; ++i) {
    const auto slot = static_cast<std::uint32_t>(random() % 50);
    const Time when = Time(std::chrono::milliseconds(random() % 1000));
    if (random() % 4 == 0) {
      timers.set(slot, kNever);
      model.erase(slot);
    } else {
      timers.set(slot, when);
      model[slot] = when;
    }
    Time earliest = kNever;
    for (const auto& [s, t] : model) earliest = std::min(earliest, t);
    REQUIRE(timers.next() == earliest);
    if (random() % 10 != 0) continue;
    const Time now = Time(std::chrono::milliseconds(random() % 1000));
    Time last = Time::min();
    for (std::uint32_t due = 0; timers.pop(now, due);) {
      REQUIRE(model.count(due) == 1);
      REQUIRE(model[due] <= now);
      REQUIRE(model[due] >= last);
      last = model[due];
      model.erase(due);
    }
    for (const auto& [s, t] : model) REQUIRE(t > now);
  }
}

TEST_CASE("connections - a slot is reused and its generation is not") {
  struct Connection {
    ConnId id;
  };
  std::mt19937_64 random(seed());
  Connections<Connection> connections;
  std::map<std::pair<std::uint32_t, std::uint32_t>, Connection*> model;
  std::vector<ConnId> gone;
  for (int i = 0; i < 5'000; ++i) {
    if (model.empty() || random() % 2 == 0) {
      Connection& c = connections.add(3);
      CHECK(c.id.shard == 3);
      REQUIRE(model.emplace(std::pair(c.id.slot, c.id.generation), &c).second);
      for (const ConnId& old : gone) REQUIRE_FALSE(old == c.id);
    } else {
      auto at = model.begin();
      std::advance(at, static_cast<std::ptrdiff_t>(random() % model.size()));
      if (gone.size() < 200) gone.push_back(at->second->id);
      connections.remove(at->first.first);
      model.erase(at);
    }
    REQUIRE(connections.size() == model.size());
    for (const auto& [key, c] : model) REQUIRE(connections.find(key.first, key.second) == c);
    for (const ConnId& id : gone) REQUIRE(connections.find(id.slot, id.generation) == nullptr);
  }
  CHECK(connections.find(1'000'000, 1) == nullptr);
  std::size_t seen = 0;
  connections.each([&](Connection& c) {
    ++seen;
    connections.remove(c.id.slot);
  });
  CHECK(seen == model.size());
  CHECK(connections.size() == 0);
}

TEST_CASE("mailbox - no post is lost and no sleep is missed") {
  // The loop sleeps on a flag in place of an eventfd: whoever is told to wake it sets the flag.
  constexpr std::uint64_t kEach = 20'000;
  constexpr int kPosters = 3;
  Mailbox mailbox;
  std::atomic<int> wakes = 0;
  std::array<std::uint64_t, kPosters> next{};
  bool in_order = true;
  std::jthread loop([&] {
    std::vector<Mailbox::Item> items;
    for (std::uint64_t taken = 0; taken < kEach * kPosters;) {
      if (mailbox.sleep()) {
        wakes.wait(0);
        wakes = 0;
      }
      mailbox.awake();
      mailbox.take(items);
      for (const Mailbox::Item& item : items) {
        const std::size_t poster = item.to[0].slot;
        in_order = in_order && item.post.topic == next[poster]++;
      }
      taken += items.size();
    }
  });
  {
    std::vector<std::jthread> posters;
    for (std::uint32_t p = 0; p < kPosters; ++p) {
      posters.emplace_back([&, p] {
        const ConnId mine{p, 1, 2};
        const ConnId other{p, 1, 3};
        for (std::uint64_t i = 0; i < kEach; ++i) {
          const ConnId ids[] = {other, mine};
          if (!mailbox.push(ids, 2, {i, nullptr})) continue;
          wakes = 1;
          wakes.notify_one();
        }
      });
    }
  }
  loop.join();
  CHECK(in_order);
  CHECK_FALSE(mailbox.push({}, 2, {}));
}

TEST_CASE("stop signal - the first call counts") {
  StopSignal stop;
  CHECK_FALSE(stop.requested());
  const Time before = std::chrono::steady_clock::now();
  CHECK(stop.set(1h));
  CHECK_FALSE(stop.set(0s));
  CHECK(stop.requested());
  CHECK(stop.until() >= before + 1h);
}

TEST_CASE("counters - batches go to their power of two") {
  Counters counters;
  for (const std::size_t n : {0UL, 1UL, 2UL, 3UL, 4UL, 2047UL, 2048UL, 1UL << 40})
    counters.batch(n);
  counters.add(Count::bytes_in, 5);
  Stats stats;
  stats.add(counters);
  stats.add(counters);
  CHECK(stats.get(Count::bytes_in) == 10);
  CHECK(stats.get(Count::wakeups) == 16);
  CHECK(stats.batches[0] == 2);
  CHECK(stats.batches[1] == 4);
  CHECK(stats.batches[2] == 2);
  CHECK(stats.batches[10] == 2);
  CHECK(stats.batches[kBatchBuckets - 1] == 4);
  CHECK(std::string(name_of(Count::sys_wait)) == "sys_wait");
  CHECK(std::string(name_of(Count::pool_jobs)) == "pool_jobs");
}

TEST_CASE("listener - binds what it is told and says why not") {
  const Listener any("127.0.0.1", 0, Listener::Mode::nonblocking, false);
  CHECK(any.port() != 0);
  const auto error_of_listening = [](const std::string& host, std::uint16_t port) {
    try {
      const Listener listener(host, port, Listener::Mode::nonblocking, false);
    } catch (const std::system_error& e) {
      CHECK(std::string(e.what()).find(host) != std::string::npos);
      return e.code();
    }
    return std::error_code{};
  };
  CHECK(error_of_listening("127.0.0.1", any.port()) == std::errc::address_in_use);
  CHECK_THROWS_AS(error_of_listening("localhost", 0), std::invalid_argument);
  CHECK_THROWS_AS(error_of_listening("", 0), std::invalid_argument);
  CHECK(error_of_listening("192.0.2.1", 0) == std::errc::address_not_available);  // RFC 5737
}

TEST_CASE("a blocking call does not use a connection that was idle for too long") {
  const auto upstream = make_tcp_upstream(TestUpstream::Listens::yes);
  const Blob request = pattern(1, 10);
  Counters counters;
  const auto connections_of_two_calls = [&](Upstreams& upstreams) {
    const std::size_t before = upstream->accepted();
    for (CallId id = 1; id <= 2; ++id) {
      Cancellation cancellation;
      const PendingCall call({id, &upstream->address(), request, request.size(), kPatience});
      const Answer answer = upstreams.call(call, Upstreams::kNobody, cancellation, counters);
      CHECK(!answer.error);
      CHECK(difference(request, answer.bytes) == "");
    }
    return upstream->accepted() - before;
  };
  Upstreams keeps;
  CHECK(connections_of_two_calls(keeps) == 1);
  Upstreams forgets(Duration::zero());
  CHECK(connections_of_two_calls(forgets) == 2);
}

}  // namespace
}  // namespace echolab::test
