// Sessions that call upstreams: each call is answered once, with the right bytes or the right
// error, and nobody else waits for it.
#include <fmt/format.h>

#include <atomic>
#include <mutex>

#include "tests/world.hpp"

namespace echolab::test {
namespace {

using Habit = TestUpstream::Habit;
using Listens = TestUpstream::Listens;

// What the sessions of a test were answered.
class Answers {
 public:
  void add(const Reply& reply) {
    const std::scoped_lock lock(mutex_);
    all_.push_back({reply.id, reply.error, {reply.bytes.begin(), reply.bytes.end()}});
  }
  struct Answer {
    CallId id;
    std::error_code error;
    Blob bytes;
  };
  [[nodiscard]] std::vector<Answer> all() const {
    const std::scoped_lock lock(mutex_);
    return all_;
  }
  [[nodiscard]] std::size_t count() const { return all().size(); }

 private:
  mutable std::mutex mutex_;
  std::vector<Answer> all_;
};

// Asks the upstream for each `size` bytes that it gets, and passes on the answer: "!" if it is an
// error.
Handlers gateway(const Upstream& to, Answers& answers, Duration timeout = kPatience,
                 std::size_t size = 1) {
  Handlers h;
  h.bytes = [&to, timeout, size, id = CallId{0}, got = Blob()](Out& out, Input in, Time) mutable {
    got.insert(got.end(), in.begin(), in.end());
    for (; got.size() >= size; got.erase(got.begin(), got.begin() + static_cast<long>(size))) {
      out.call(to, ++id, Bytes(got).first(size), size, timeout);
    }
  };
  h.reply = [&answers](Out& out, const Reply& reply, Time) {
    answers.add(reply);
    reply.error ? out.write(blob_of("!")) : out.write(reply.bytes);
  };
  return h;
}

bool none_open(World& world, const TestUpstream& upstream) {
  return world.eventually([&] { return upstream.open() == 0; });
}

CONFORMANCE(call_answered, "calls are answered one after the other over one connection",
            Over::one_loop) {
  constexpr std::size_t kCalls = 50;
  constexpr std::size_t kSize = 700;
  Answers answers;
  auto world = make_world(target);
  TestUpstream& upstream = world->upstream();
  world->start(serve([&] { return gateway(upstream.address(), answers, kPatience, kSize); }));
  auto peer = world->connect();
  for (std::size_t i = 0; i < kCalls; ++i) {
    const Blob request = pattern(i, kSize);
    REQUIRE(difference(request, peer->exchange(request, request.size())) == "");
  }
  const Stats stats = world->backend().stats();
  for (std::size_t i = 0; i < kCalls; ++i) CHECK(answers.all().at(i).id == i + 1);
  CHECK(upstream.accepted() == 1);
  CHECK(stats.get(Count::calls) == kCalls);
  CHECK(stats.get(Count::calls_failed) == 0);
  CHECK(stats.get(Count::calls_reused) == kCalls - 1);
  world->finish();
  CHECK(none_open(*world, upstream));
}

CONFORMANCE(call_sizes, "calls of every size up to megabytes", Over::one_loop) {
  // The large ones are answered while they are still being sent, in many pieces.
  const std::vector<std::size_t> sizes = {1, 1000, 65'536, 300'000, scaled(8, 2) << 20};
  Answers answers;
  auto world = make_world(target);
  TestUpstream& upstream = world->upstream();
  world->start(serve([&] {
    Handlers h = gateway(upstream.address(), answers);
    const auto ask = [&](Out& out, CallId id) {
      out.call(upstream.address(), id, pattern(id, sizes[id]), sizes[id], kPatience);
    };
    h.open = [=](Out& out, ConnId, Time) { ask(out, 0); };
    h.reply = [=, &answers](Out& out, const Reply& reply, Time) {
      answers.add(reply);
      out.write(blob_of("."));
      if (reply.id + 1 < sizes.size()) ask(out, reply.id + 1);
    };
    return h;
  }));
  auto peer = world->connect();
  peer->read(sizes.size());
  for (const auto& answer : answers.all()) {
    CHECK(!answer.error);
    CHECK(difference(pattern(answer.id, sizes[answer.id]), answer.bytes) == "");
  }
  world->finish();
  CHECK(none_open(*world, upstream));
}

CONFORMANCE(call_several, "a session may have many calls at once", Over::one_loop) {
  constexpr CallId kCalls = 100;
  Answers answers;
  auto world = make_world(target);
  TestUpstream& upstream = world->upstream();
  upstream.behave(Habit::echo, 5ms);
  world->start(serve([&] {
    Handlers h = gateway(upstream.address(), answers);
    h.open = [&](Out& out, ConnId, Time) {
      for (CallId id = 0; id < kCalls; ++id) {
        out.call(upstream.address(), 1000 + id, pattern(id, 10 + id), 10 + id, kPatience);
      }
    };
    h.reply = [&](Out& out, const Reply& reply, Time) {
      answers.add(reply);
      out.write(blob_of("."));
    };
    return h;
  }));
  auto peer = world->connect();
  peer->read(kCalls);
  std::vector<bool> seen(kCalls);
  for (const auto& answer : answers.all()) {
    const CallId id = answer.id - 1000;
    REQUIRE(id < kCalls);
    CHECK(!seen[id]);
    seen[id] = true;
    CHECK(!answer.error);
    CHECK(difference(pattern(id, 10 + id), answer.bytes) == "");
  }
  CHECK(answers.count() == kCalls);
  // Not more than so many are kept for later.
  const std::string_view spec = target.spec;
  if (spec.starts_with("epoll") || spec.starts_with("io_uring")) {
    CHECK(world->eventually([&] { return upstream.open() <= 64; }));
  }
  world->finish();
  CHECK(none_open(*world, upstream));
}

CONFORMANCE(call_crowd, "many sessions call at once while posts and deadlines go on", Over::all) {
  const std::size_t n = std::min<std::size_t>(scaled(200, 40), target.capacity());
  constexpr std::size_t kRounds = 5;
  Answers answers;
  std::mutex mutex;
  std::vector<ConnId> ids;
  auto world = make_world(target);
  TestUpstream& upstream = world->upstream();
  upstream.behave(Habit::echo, 3ms);
  world->start(serve(
      [&] {
        Handlers h = gateway(upstream.address(), answers);
        h.open = [&](Out& out, ConnId id, Time now) {
          out.wake_at(now + 1ms);
          const std::scoped_lock lock(mutex);
          ids.push_back(id);
        };
        h.post = [](Out&, const Post&, Time) {};
        h.deadline = [](Out& out, Time now) { out.wake_at(now + 5ms); };
        return h;
      },
      Pushes::yes));
  Peers peers = world->connect_many(n);
  for (std::size_t round = 0; round < kRounds; ++round) {
    std::vector<Blob> requests;
    for (std::size_t i = 0; i < n; ++i) requests.push_back(pattern(round * n + i, 1));
    {
      const std::scoped_lock lock(mutex);
      world->backend().post(ids, {1, nullptr});
    }
    const std::vector<Blob> replies = exchange_on_all(peers, requests);
    for (std::size_t i = 0; i < n; ++i) REQUIRE(difference(requests[i], replies[i]) == "");
  }
  CHECK(answers.count() == n * kRounds);
  CHECK(world->backend().stats().get(Count::calls_failed) == 0);
  world->finish();
  CHECK(world->watch.deadlines > 0);
  CHECK(none_open(*world, upstream));
}

CONFORMANCE(call_others, "while a call waits the other connections are served", Over::one_loop) {
  // The first connection's session calls, the others' echo. The call's time is up at last.
  Answers answers;
  std::atomic<int> next = 0;
  auto world = make_world(target);
  TestUpstream& upstream = world->upstream();
  upstream.behave(Habit::silent);
  world->start(
      serve([&] { return next++ == 0 ? gateway(upstream.address(), answers, 24h) : Handlers{}; }));
  auto caller = world->connect();
  REQUIRE(world->eventually([&] { return world->watch.opened == 1; }));
  caller->send(pattern(1, 1));
  REQUIRE(world->eventually([&] { return upstream.open() == 1; }));
  auto other = world->connect();
  for (std::size_t i = 0; i < 100; ++i) {
    REQUIRE(difference(pattern(i, 500), other->exchange(pattern(i, 500), 500)) == "");
  }
  CHECK(answers.count() == 0);
  world->backend().stop(50ms);
  CHECK(world->eventually([&] { return world->run_returned(); }));
  world->finish();
  CHECK(answers.count() == 0);
  CHECK(none_open(*world, upstream));
}

CONFORMANCE(call_own_bytes, "while a call waits its session gets bytes and deadlines",
            Over::one_loop) {
  if (target.blocking()) return;  // there the caller waits: that is the model
  Answers answers;
  auto world = make_world(target);
  TestUpstream& upstream = world->upstream();
  upstream.behave(Habit::silent);
  world->start(serve([&] {
    Handlers h = gateway(upstream.address(), answers);
    h.open = [&](Out& out, ConnId, Time now) {
      out.call(upstream.address(), 1, pattern(1, 10), 10, 24h);
      out.wake_at(now + 20ms);
    };
    h.bytes = nullptr;  // echoes
    h.deadline = [](Out& out, Time) { out.write(blob_of("t")); };
    return h;
  }));
  auto peer = world->connect();
  CHECK(difference(blob_of("t"), peer->read(1)) == "");
  CHECK(difference(pattern(2, 500), peer->exchange(pattern(2, 500), 500)) == "");
  // Its client goes, and with it the call.
  CHECK(world->eventually([&] { return upstream.open() == 1; }));
  CHECK(peer->exchange_all({}).empty());
  peer->close();
  CHECK(none_open(*world, upstream));
  CHECK(world->eventually([&] { return world->watch.destroyed == 1; }));
  world->finish();
  CHECK(answers.count() == 0);
}

CONFORMANCE(call_timeout, "a call that is not answered in time says timed_out", Over::one_loop) {
  const bool connects = GENERATE(true, false);
  CAPTURE(connects);
  Answers answers;
  std::atomic<Time> asked{};
  auto world = make_world(target);
  TestUpstream& upstream = world->upstream(connects ? Listens::yes : Listens::full);
  upstream.behave(Habit::silent);
  world->start(serve([&] {
    Handlers h = gateway(upstream.address(), answers, 50ms);
    h.bytes = [&, call = h.bytes](Out& out, Input in, Time now) {
      asked = now;
      call(out, in, now);
    };
    return h;
  }));
  auto peer = world->connect();
  for (std::size_t i = 1; i <= 2; ++i) {
    CHECK(difference(blob_of("!"), peer->exchange(pattern(1, 1), 1)) == "");
    CHECK(world->now() - asked.load() >= 50ms);
    CHECK(answers.all().back().error == std::errc::timed_out);
    // What may still be answered is not used again.
    CHECK(world->eventually([&] { return upstream.accepted() == (connects ? i : 0); }));
  }
  CHECK(none_open(*world, upstream));
  CHECK(world->backend().stats().get(Count::calls_failed) == 2);
  world->finish();
}

CONFORMANCE(call_refused, "calls to where nobody listens and to no address fail", Over::one_loop) {
  Answers answers;
  auto world = make_world(target);
  TestUpstream& upstream = world->upstream(Listens::no);
  const bool is_address = GENERATE(true, false);
  const Upstream to = is_address ? upstream.address() : Upstream{"localhost", 1};
  world->start(serve([&] { return gateway(to, answers); }));
  auto peer = world->connect();
  for (int i = 0; i < 5; ++i) {
    CHECK(difference(blob_of("!"), peer->exchange(pattern(1, 1), 1)) == "");
    const auto error = is_address ? std::errc::connection_refused : std::errc::invalid_argument;
    CHECK(answers.all().back().error == error);
  }
  CHECK(answers.count() == 5);
  world->finish();
}

CONFORMANCE(call_dies, "an upstream that dies before or in mid-reply is a connection_reset",
            Over::one_loop) {
  const Habit habit = GENERATE(Habit::hang_up, Habit::half);
  Answers answers;
  auto world = make_world(target);
  TestUpstream& upstream = world->upstream();
  upstream.behave(habit);
  world->start(serve([&] {
    Handlers h = gateway(upstream.address(), answers);
    h.bytes = [&](Out& out, Input, Time) {
      out.call(upstream.address(), 1, pattern(1, 100), 100, kPatience);
    };
    return h;
  }));
  auto peer = world->connect();
  for (std::size_t i = 1; i <= 5; ++i) {
    CHECK(difference(blob_of("!"), peer->exchange(pattern(1, 1), 1)) == "");
    CHECK(answers.all().back().error == std::errc::connection_reset);
    CHECK(upstream.accepted() == i);  // a fresh connection's failure is not tried again
  }
  CHECK(none_open(*world, upstream));
  upstream.behave(Habit::echo);
  CHECK(difference(pattern(1, 100), peer->exchange(pattern(1, 1), 100)) == "");
  world->finish();
}

CONFORMANCE(call_stale, "a call over a kept connection that has died is made again",
            Over::one_loop) {
  const bool idle = GENERATE(true, false);
  CAPTURE(idle);
  Answers answers;
  auto world = make_world(target);
  TestUpstream& upstream = world->upstream();
  if (!idle) upstream.behave(Habit::once);
  world->start(serve([&] { return gateway(upstream.address(), answers); }));
  auto peer = world->connect();
  for (std::size_t i = 1; i <= 10; ++i) {
    CHECK(difference(pattern(i, 1), peer->exchange(pattern(i, 1), 1)) == "");
    CHECK(upstream.accepted() == i);
    if (!idle) continue;
    upstream.close_all();
    REQUIRE(none_open(*world, upstream));
  }
  CHECK(world->backend().stats().get(Count::calls_failed) == 0);
  CHECK(world->backend().stats().get(Count::calls_reused) == 0);
  world->finish();
  CHECK(none_open(*world, upstream));
}

CONFORMANCE(call_chatty, "a connection with more bytes than were asked for is not used again",
            Over::one_loop) {
  Answers answers;
  auto world = make_world(target);
  TestUpstream& upstream = world->upstream();
  upstream.behave(Habit::chatty);
  world->start(serve([&] { return gateway(upstream.address(), answers); }));
  auto peer = world->connect();
  for (std::size_t i = 1; i <= 5; ++i) {
    CHECK(difference(pattern(i, 1), peer->exchange(pattern(i, 1), 1)) == "");
    CHECK(upstream.accepted() == i);
  }
  CHECK(none_open(*world, upstream));
  world->finish();
}

CONFORMANCE(call_and_close, "a session that closes is not answered any more", Over::one_loop) {
  const bool at_once = GENERATE(true, false);
  CAPTURE(at_once);
  if (!at_once && target.blocking()) return;  // its deadline would wait for the answer
  Answers answers;
  auto world = make_world(target);
  TestUpstream& upstream = world->upstream();
  upstream.behave(Habit::silent);
  world->start(serve([&] {
    Handlers h = gateway(upstream.address(), answers);
    h.open = [&, at_once](Out& out, ConnId, Time now) {
      out.call(upstream.address(), 1, pattern(1, 10), 10, 24h);
      out.write(blob_of("bye"));
      at_once ? out.close() : out.wake_at(now + 10ms);
    };
    h.deadline = [](Out& out, Time) { out.close(); };
    return h;
  }));
  for (int i = 0; i < 5; ++i) {
    auto peer = world->connect();
    CHECK(difference(blob_of("bye"), peer->read_all()) == "");
    CHECK(none_open(*world, upstream));
  }
  world->finish();
  CHECK(answers.count() == 0);
}

CONFORMANCE(call_drain, "a session may stay for its answer while the server drains",
            Over::one_loop) {
  Answers answers;
  auto world = make_world(target);
  TestUpstream& upstream = world->upstream();
  upstream.behave(Habit::echo, 200ms);
  world->start(serve([&] {
    Handlers h = gateway(upstream.address(), answers);
    h.reply = [&](Out& out, const Reply& reply, Time) {
      answers.add(reply);
      out.write(reply.bytes);
      out.close();
    };
    h.drain = [](Out&, Time) {};
    return h;
  }));
  Peers peers = world->connect_many(4);
  for (auto& peer : peers) peer->send(pattern(1, 1));
  REQUIRE(world->eventually([&] { return upstream.open() == peers.size(); }));
  world->backend().stop(kPatience);
  for (auto& peer : peers) CHECK(difference(pattern(1, 1), peer->read_all()) == "");
  peers.clear();
  CHECK(world->eventually([&] { return world->run_returned(); }));
  world->finish();
  CHECK(world->watch.failed == 0);
  CHECK(answers.count() == 4);
  CHECK(none_open(*world, upstream));
}

}  // namespace
}  // namespace echolab::test
