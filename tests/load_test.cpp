// The load generator against an echo in this process, good and bad.
#include "harness/load.hpp"

#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "harness/units.hpp"
#include "tests/bad_servers.hpp"
#include "tests/catch.hpp"
#include "tests/helpers.hpp"
#include "tests/load_helpers.hpp"
#include "tests/skip.hpp"

using namespace echolab::harness;
using namespace std::chrono_literals;
using Kind = LoadError::Kind;

namespace {

struct Failure {
  Kind kind;
  std::string line;
  Slice partial;
  Histogram latency;
};

// What a load of these on a server with this behaviour fails with.
Failure failure_of(const Shape& shape, const Behaviour& behaviour, Nanos patience = kAmple) {
  const TestServer server(behaviour);
  const auto load = connected(server, shape);
  load->set_patience(patience);
  Histogram latency;
  try {
    load->run(kAmple, latency, nullptr);
  } catch (const LoadError& error) {
    return {error.kind, error.what(), load->partial(), latency};
  }
  FAIL("the load did not notice");
  return {Kind::connect, "", {}, {}};
}

bool descriptors(rlim_t needed) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_max < needed) {
    echolab::test::skip(
        fmt::format("needs {} descriptors, the hard limit is {}", needed, limit.rlim_max));
    return false;
  }
  return true;
}

}  // namespace

TEST_CASE("closed loop: every size and depth, and the books balance", "[load]") {
  struct Case {
    unsigned connections;
    std::size_t size;
    unsigned depth;
  };
  for (const Case c :
       {Case{1, 1, 1}, Case{3, 1, 16}, Case{2, 7, 5}, Case{64, 64, 1}, Case{8, 64, 16},
        Case{3, 65, 3}, Case{2, 1001, 4}, Case{2, 4096, 16}, Case{3, 4097, 1}, Case{2, 65'536, 4},
        Case{2, 65'537, 4}, Case{2, 1'048'576, 4}, Case{1, 1'048'576, 16}}) {
    CAPTURE(c.connections, c.size, c.depth);
    const TestServer server;
    const auto load = connected(server, closed(c.connections, c.size, c.depth));
    load->verify(c.connections);
    Histogram latency;
    Histogram raw;
    std::uint64_t requests = 0;
    for (int slice = 0; slice < 3; ++slice) {
      const std::uint64_t before = latency.count();
      const double sum = latency.sum();
      const Slice s = load->run(10ms, latency, &raw);
      requests += s.requests;
      REQUIRE(s.requests > 0);
      REQUIRE(latency.count() - before == s.requests);
      REQUIRE(s.elapsed > 0ns);
      REQUIRE(s.client_cpu > 0ns);
      REQUIRE(s.skipped == 0);
      REQUIRE(s.due == 0);
      REQUIRE(s.inflight_mean <= c.connections * c.depth + 1e-9);
      // Little's law: in flight = rate * latency.
      const double area = s.inflight_mean * static_cast<double>(s.elapsed.count());
      REQUIRE(std::abs(area / (latency.sum() - sum) - 1) < 1e-6);
    }
    REQUIRE(raw.buckets() == latency.buckets());
    REQUIRE(latency.count() == requests);
  }
}

TEST_CASE("replies in small pieces are put together", "[load]") {
  const TestServer server({}, 13);
  const auto load = connected(server, closed(2, 100, 3));
  load->verify(2);
  Histogram latency;
  REQUIRE(load->run(20ms, latency, nullptr).requests > 0);
}

TEST_CASE("2000 connections all get their turn from slice to slice", "[load]") {
  constexpr unsigned connections = 2000;
  if (!descriptors(2 * connections + 200)) return;
  const TestServer server;
  const auto load = connected(server, closed(connections, 64, 1));
  Histogram latency;
  load->verify(100);
  std::size_t served = 0;
  // Every slice starts at least one connection, so 2000 slices are always enough.
  for (unsigned slice = 0; slice < connections && served < connections; ++slice) {
    load->run(1ms, latency, nullptr);
    served = server.beyond(kHello);
  }
  REQUIRE(served == connections);
}

TEST_CASE("open loop: what is due is sent, answered or counted as skipped", "[load]") {
  const TestServer server;
  SECTION("constant") {
    const auto load = connected(server, open(10, 64, 2000, Arrivals::constant));
    Histogram latency;
    Histogram raw;
    std::uint64_t due = 0;
    for (int slice = 0; slice < 10; ++slice) {
      const Slice s = load->run(20ms, latency, &raw);
      REQUIRE(s.requests + s.skipped == s.due);
      REQUIRE(s.elapsed >= 20ms);
      due += s.due;
    }
    // 200 ms at 2000/s, in slices shorter than some connections' wait for their turn.
    REQUIRE(due >= 399);
    REQUIRE(due <= 401);
    REQUIRE(latency.count() == raw.count());
    REQUIRE(raw.sum() <= latency.sum());
  }
  SECTION("poisson") {
    const auto load = connected(server, open(10, 64, 5000, Arrivals::poisson));
    Histogram latency;
    const Slice s = load->run(200ms, latency, nullptr);
    REQUIRE(s.requests + s.skipped == s.due);
    REQUIRE(s.due > 1000 - 6 * 32);  // six standard deviations; the seed is fixed
    REQUIRE(s.due < 1000 + 6 * 32);
  }
}

TEST_CASE("a server that corrupts a byte is found out", "[load][bad]") {
  const Failure f =
      failure_of(closed(1, 100, 1), after(kHello + 250, [](Stream& s, std::string& in) {
                   if (s.held.empty()) in[0] = static_cast<char>(in[0] ^ 1);
                   s.held = "done";
                   return Then::go_on;
                 }));
  REQUIRE(f.kind == Kind::mismatch);
  CAPTURE(f.line);
  REQUIRE(contains(f.line, "connection 1, request 3: wrong byte at offset 50 of 100"));
  REQUIRE(contains(f.line, "expected 0x"));
  REQUIRE(f.partial.requests == 2);
  REQUIRE(f.latency.count() == 2);
  REQUIRE(f.partial.elapsed > 0ns);
}

TEST_CASE("a server that swaps two replies is found out", "[load][bad]") {
  constexpr std::size_t size = 64;
  const Failure f = failure_of(closed(1, size, 2), after(kHello, [](Stream& s, std::string& in) {
                                 s.held += in;
                                 in.clear();
                                 if (s.held.size() < 2 * size) return Then::go_on;
                                 in = s.held.substr(size, size) + s.held.substr(0, size);
                                 s.held.clear();
                                 return Then::go_on;
                               }));
  REQUIRE(f.kind == Kind::mismatch);
  CAPTURE(f.line);
  REQUIRE(contains(f.line, "request 1: wrong byte at offset"));
}

TEST_CASE("a server that answers one connection with another's bytes is found out", "[load][bad]") {
  // The second connection gets what the first one sent.
  auto first = std::make_shared<std::string>();
  const Failure f = failure_of(closed(2, 64, 1), [first](Stream& s, std::string& in) {
    if (s.received <= kHello) return Then::go_on;
    if (s.number == 0 && first->size() < 64) *first += in;
    if (s.number == 1 && first->size() >= in.size()) in = first->substr(0, in.size());
    return Then::go_on;
  });
  REQUIRE(f.kind == Kind::mismatch);
  CAPTURE(f.line);
  REQUIRE(contains(f.line, "connection 2, request"));
}

TEST_CASE("a server that drops a byte is found out", "[load][bad]") {
  const auto drop = after(kHello + 30, [](Stream& s, std::string& in) {
    if (s.held.empty()) in.erase(0, 1);
    s.held = "done";
    return Then::go_on;
  });
  SECTION("with bytes behind it") {
    const Failure f = failure_of(closed(1, 64, 4), drop);
    CAPTURE(f.line);
    REQUIRE(f.kind == Kind::mismatch);
    REQUIRE(contains(f.line, "request 1: wrong byte at offset"));
  }
  SECTION("and waits") {
    const Failure f = failure_of(closed(1, 31, 1), drop, 200ms);
    CAPTURE(f.line);
    REQUIRE(f.kind == Kind::timeout);
    REQUIRE(contains(f.line, "request 1: 30 of 31 bytes of the reply received"));
  }
}

TEST_CASE("a server that closes early is found out", "[load][bad]") {
  const Failure f =
      failure_of(closed(1, 64, 1), after(kHello + 64 + 10, [](Stream&, std::string& in) {
                   in.clear();
                   return Then::close;
                 }));
  CAPTURE(f.line);
  REQUIRE(f.kind == Kind::closed);
  // The server closes with unread bytes of ours or without, so that it is a FIN or a RST.
  REQUIRE(contains(f.line, "connection 1: "));
  REQUIRE(f.partial.requests == 1);
}

TEST_CASE("a server that resets is found out", "[load][bad]") {
  const Failure f = failure_of(closed(4, 64, 2), after(kHello + 200, [](Stream&, std::string& in) {
                                 in.clear();
                                 return Then::reset;
                               }));
  CAPTURE(f.line);
  REQUIRE(f.kind == Kind::closed);
}

TEST_CASE("a server that never answers is found out", "[load][bad]") {
  const Behaviour silent = [](Stream&, std::string& in) {
    in.clear();
    return Then::go_on;
  };
  SECTION("in a run") {
    const Failure f = failure_of(closed(2, 64, 3), after(kHello, silent), 200ms);
    CAPTURE(f.line);
    REQUIRE(f.kind == Kind::timeout);
    REQUIRE(contains(f.line, "6 requests unanswered"));
    REQUIRE(f.partial.requests == 0);
  }
  SECTION("in an open loop") {
    const Failure f =
        failure_of(open(2, 64, 100, Arrivals::constant), after(kHello, silent), 200ms);
    CAPTURE(f.line);
    REQUIRE(f.kind == Kind::timeout);
  }
  SECTION("not even the first byte") {
    const TestServer server(silent);
    Load load(parse_endpoint(server.address()), closed(2, 64, 1), 1);
    try {
      load.connect(200ms);
      FAIL("connect did not notice");
    } catch (const LoadError& error) {
      REQUIRE(error.kind == Kind::timeout);
      REQUIRE(contains(error.what(), "0 of 2 connections"));
    }
  }
  SECTION("in the verification") {
    const TestServer server(after(kHello + 100, silent));
    const auto load = connected(server, closed(1, 64, 1));
    load->set_patience(200ms);
    try {
      load->verify(1);
      FAIL("verify did not notice");
    } catch (const LoadError& error) {
      REQUIRE(error.kind == Kind::timeout);
    }
  }
}

TEST_CASE("a server that says more than it was asked is found out", "[load][bad]") {
  const Failure f = failure_of(closed(1, 64, 1), after(kHello, [](Stream& s, std::string& in) {
                                 if (s.received == kHello + 64) in += "!!";
                                 return Then::go_on;
                               }));
  CAPTURE(f.line);
  REQUIRE(f.kind == Kind::extra);
  REQUIRE(contains(f.line, "2 bytes that nobody asked for, after the reply to request 1"));
  REQUIRE(f.partial.requests == 1);
}

TEST_CASE("more connections than descriptors are refused with advice", "[load][bad]") {
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  if (limit.rlim_max >= kMaxConnections) {
    echolab::test::skip("there are more descriptors than connections can be asked for");
    return;
  }
  const TestServer server;
  const auto most = static_cast<unsigned>(limit.rlim_max);
  Load load(parse_endpoint(server.address()), closed(most, 64, 1), 1);
  try {
    load.connect(kAmple);
    FAIL("connected all");
  } catch (const LoadError& error) {
    REQUIRE(error.kind == Kind::limit);
    REQUIRE(contains(error.what(), "ulimit -n"));
    REQUIRE(contains(error.what(), std::to_string(most)));
  }
}

TEST_CASE("shapes out of bounds are refused", "[load]") {
  const Endpoint endpoint = parse_endpoint("127.0.0.1:7");
  for (const Shape& shape :
       {closed(0, 64, 1), closed(1, 0, 1), closed(1, 64, 0), closed(kMaxConnections + 1, 64, 1),
        closed(1, kMaxSize + 1, 1), closed(1, 64, kMaxDepth + 1),
        open(1, 64, -1, Arrivals::poisson), open(1, 64, NAN, Arrivals::poisson),
        open(1, 64, 2 * kMaxRate, Arrivals::poisson)}) {
    REQUIRE_THROWS_AS(Load(endpoint, shape, 1), UsageError);
  }
}

TEST_CASE("an interrupt ends a run in order", "[load]") {
  struct Cleared {
    ~Cleared() { Load::clear_interrupt(); }
  } cleared;
  const TestServer server;
  for (const Shape& shape : {closed(4, 64, 2), open(4, 64, 500, Arrivals::poisson)}) {
    Load::clear_interrupt();
    const auto load = connected(server, shape);
    Histogram latency;
    std::thread other([] {
      std::this_thread::sleep_for(50ms);
      Load::interrupt();
    });
    const auto start = Clock::now();
    const Slice s = load->run(3600s, latency, nullptr);
    other.join();
    REQUIRE(Clock::now() - start < kAmple);
    REQUIRE(Load::interrupted());
    REQUIRE(s.requests == latency.count());
    REQUIRE(s.elapsed < kAmple);
    if (shape.rate > 0) REQUIRE(s.requests + s.skipped == s.due);
  }
  Load load(parse_endpoint(server.address()), closed(1, 64, 1), 1);
  try {
    load.connect(kAmple);
    FAIL("connected although interrupted");
  } catch (const LoadError& error) {
    REQUIRE(error.kind == Kind::interrupted);
  }
}

TEST_CASE("progress is reported while a run lasts", "[load]") {
  const TestServer server;
  const auto load = connected(server, closed(2, 64, 1));
  std::vector<std::uint64_t> reports;
  load->set_progress([&](Nanos elapsed, std::uint64_t requests) {
    REQUIRE(elapsed >= 250ms);
    reports.push_back(requests);
  });
  Histogram latency;
  const Slice s = load->run(400ms, latency, nullptr);
  REQUIRE(!reports.empty());
  REQUIRE(reports.back() <= s.requests);
}

TEST_CASE("endpoints", "[load]") {
  REQUIRE(parse_endpoint("127.0.0.1:7000").address.ss_family == AF_INET);
  REQUIRE(parse_endpoint("[::1]:7000").address.ss_family == AF_INET6);
  REQUIRE(parse_endpoint("127.0.0.1:7000").text == "127.0.0.1:7000");
  for (const char* bad : {"", ":", "127.0.0.1", "127.0.0.1:", ":7000", "127.0.0.1:0", "::1:7000",
                          "127.0.0.1:65536", "127.0.0.1:7x", "127.0.0.1:-1", "[]:7000",
                          "127.0.0.1:99999999999999999999", "1.2.3.4.5:7000"}) {
    CAPTURE(bad);
    REQUIRE_THROWS_AS(parse_endpoint(bad), UsageError);
  }
}
