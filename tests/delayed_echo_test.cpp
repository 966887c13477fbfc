// echo-server --delay as a session, in virtual time.
#include "echo/echo.hpp"
#include "tests/world.hpp"

namespace echolab::test {
namespace {

struct DelayedEchoFixture {
  Out& in(std::string_view text) {
    out.clear();
    Blob bytes = blob_of(text);
    session.on_bytes(out, bytes, now);
    return out;
  }
  Out& deadline() {
    out.clear();
    session.on_deadline(out, now);
    return out;
  }
  Time now{1h};
  Out out;
  DelayedEcho session{5ms};
};

std::string sent(const Out& out) {
  std::string all;
  for (std::size_t i = 0; i < out.pieces(); ++i) {
    const Bytes bytes = out.bytes(i);
    all.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  return all;
}

TEST_CASE("delayed echo - each chunk comes back so much later, in order") {
  DelayedEchoFixture f;
  CHECK(sent(f.in("one")).empty());
  CHECK(f.out.deadline() == f.now + 5ms);
  f.now += 2ms;
  CHECK(sent(f.in("two")).empty());
  CHECK(f.out.deadline() == f.now + 3ms);
  f.now += 3ms;
  CHECK(sent(f.deadline()) == "one");
  CHECK(f.out.deadline() == f.now + 2ms);
  f.now += 10ms;
  CHECK(sent(f.in("three")).empty());
  CHECK(sent(f.deadline()) == "two");
  CHECK(f.out.deadline() == f.now + 5ms);
  f.now += 5ms;
  CHECK(sent(f.deadline()) == "three");
  CHECK_FALSE(f.out.deadline());
  CHECK_FALSE(f.out.closing());
}

TEST_CASE("delayed echo - the end waits for what is due") {
  for (const bool drain : {false, true}) {
    DelayedEchoFixture f;
    f.in("one");
    f.out.clear();
    drain ? f.session.on_drain(f.out, f.now) : f.session.on_eof(f.out, f.now);
    CHECK_FALSE(f.out.closing());
    f.now += 5ms;
    CHECK(sent(f.deadline()) == "one");
    CHECK(f.out.closing());

    DelayedEchoFixture idle;
    drain ? idle.session.on_drain(idle.out, idle.now) : idle.session.on_eof(idle.out, idle.now);
    CHECK(idle.out.closing());
  }
}

TEST_CASE("delayed echo - what waits is bounded, and nothing is lost") {
  DelayedEchoFixture f;
  const std::string chunk(64 * 1024, 'x');
  std::size_t back = 0;
  for (int i = 0; i < 40; ++i) back += sent(f.in(chunk)).size();
  CHECK(back == 40 * chunk.size() - DelayedEcho::kMost);
  f.now += 5ms;
  CHECK(sent(f.deadline()).size() == DelayedEcho::kMost);
}

CONFORMANCE(delayed_echo, "delayed echo answers later and with the same bytes", Over::one_loop) {
  auto world = make_world(target);
  world->start(std::make_unique<EchoService>(5ms));
  auto peer = world->connect();
  for (std::size_t size : {1UL, 64UL, 100'000UL}) {
    const Blob request = pattern(size, size);
    const Time before = world->now();
    CHECK(difference(request, peer->exchange(request, size)) == "");
    // Elsewhere the bytes may come in a turn that began before they were sent, and counts from
    // there.
    if (target.simulated()) CHECK(world->now() - before >= 5ms);
  }
  const Blob last = pattern(1, 10);
  CHECK(difference(last, peer->exchange_all(last)) == "");
  world->finish();
}

}  // namespace
}  // namespace echolab::test
