// The connection around the requests: order, framing of answers, deadlines, the end.
#include <algorithm>

#include "tests/catch.hpp"
#include "tests/http_probe.hpp"
#include "tests/session_driver.hpp"

namespace echolab::test {
namespace {

struct Connection : HttpServer {
  Connection() : HttpServer(1s) {}
  explicit Connection(const patterns::HttpLimits& limits) : HttpServer(1s) {
    context.limits = limits;
  }
  SessionDriver driver{session()};
};

std::string request(const std::string& path, const std::string& lines = "") {
  return "GET " + path + " HTTP/1.1\r\nHost: h\r\n" + lines + "\r\n";
}
std::string old_request(const std::string& path, const std::string& lines = "") {
  return "GET " + path + " HTTP/1.0\r\n" + lines + "\r\n";
}
std::string answer(const std::string& lines, const std::string& body) {
  return "HTTP/1.1 200 OK\r\n" + std::string(kDate) + lines + "\r\n" + body;
}
const std::string kHello =
    answer("Content-Type: text/plain; charset=utf-8\r\nContent-Length: 14\r\n", "Hello, World!\n");
std::string parked(const std::string& how) {
  return answer("Content-Type: text/plain; charset=utf-8\r\nContent-Length: " +
                    std::to_string(how.size() + 1) + "\r\n",
                how + "\n");
}

}  // namespace

TEST_CASE("answers are framed by their length") {
  Connection c;
  c.driver.feed(request("/plaintext"));
  CHECK(c.driver.take_output() == kHello);
  c.driver.feed("HEAD /plaintext HTTP/1.1\r\nHost: h\r\n\r\n");
  CHECK(c.driver.take_output() == kHello.substr(0, kHello.size() - 14));
  c.driver.feed(request("/status?n=204"));
  CHECK(c.driver.take_output() == "HTTP/1.1 204 No Content\r\n" + std::string(kDate) + "\r\n");
  c.driver.feed(request("/status?n=304"));
  CHECK(c.driver.take_output() == "HTTP/1.1 304 Not Modified\r\n" + std::string(kDate) + "\r\n");
  c.driver.feed(request("/big"));
  CHECK(c.driver.take_output() == answer("Content-Length: 0\r\n", ""));
  c.driver.feed(request("/split"));
  CHECK(c.driver.take_output() == answer("X-Echo: a  Set-Cookie: b\r\nContent-Length: 0\r\n", ""));
  CHECK_FALSE(c.driver.closed());
}

TEST_CASE("a stream is chunked, and ends with the connection for HTTP/1.0") {
  const std::string type = "Content-Type: text/plain\r\n";
  const std::string chunks = "4\r\none,\r\n4\r\ntwo,\r\n5\r\nthree\r\n0\r\n\r\n";
  for (const std::string path : {"/stream", "/slow"}) {
    Connection c;
    c.driver.feed(request(path) + request("/plaintext"));
    c.driver.pass(5s);
    CHECK(c.driver.take_output() ==
          answer(type + "Transfer-Encoding: chunked\r\n", chunks) + kHello);
    CHECK_FALSE(c.driver.closed());
    c.driver.feed("HEAD " + path + " HTTP/1.1\r\nHost: h\r\n\r\n");
    CHECK(c.driver.take_output() == answer(type + "Transfer-Encoding: chunked\r\n", ""));
    CHECK(c.probe.waiting == 0);
    c.driver.feed(old_request(path, "Connection: keep-alive\r\n") + old_request("/plaintext"));
    c.driver.pass(5s);
    CHECK(c.driver.take_output() == answer(type + "Connection: close\r\n", "one,two,three"));
    CHECK(c.driver.closed());
  }
}

TEST_CASE("the connection is kept, or closed and said so") {
  Connection c;
  c.driver.feed(old_request("/plaintext", "Connection: Keep-Alive\r\n"));
  CHECK(c.driver.take_output().find("\r\nConnection: keep-alive\r\n") != std::string::npos);
  c.driver.feed(request("/plaintext", "Connection: x, Close\r\n") + request("/plaintext"));
  const std::string last = c.driver.take_output();
  CHECK(statuses(last) == "200");
  CHECK(last.find("\r\nConnection: close\r\n") != std::string::npos);
  CHECK(c.driver.closed());

  Connection old;
  old.driver.feed(old_request("/plaintext") + old_request("/plaintext"));
  CHECK(statuses(old.driver.output()) == "200");
  CHECK(old.driver.output().find("\r\nConnection: close\r\n") != std::string::npos);
  CHECK(old.driver.closed());

  Connection ended;
  ended.driver.feed(request("/close"));
  CHECK(ended.driver.output() == answer("Transfer-Encoding: chunked\r\n", "3\r\ncut\r\n"));
  CHECK(ended.driver.closed());
}

TEST_CASE("pipelined requests are answered in order and together") {
  Connection c;
  std::string input, expected;
  for (int i = 0; i < 100; ++i) {
    input += request("/plaintext");
    expected += kHello;
  }
  c.driver.feed(input);
  CHECK(c.driver.output() == expected);
  CHECK(c.driver.writes() == 1);
}

TEST_CASE("a request is handled when the one before is answered") {
  Connection c;
  c.driver.feed(request("/park") + request("/plaintext") + request("/park"));
  c.driver.feed(request("/plaintext"));
  CHECK(c.probe.handled == 1);
  CHECK(c.driver.output().empty());
  c.driver.post({});
  CHECK(c.driver.take_output() == parked("post") + kHello);
  CHECK(c.probe.handled == 3);
  c.driver.pass(1s);
  CHECK(c.driver.take_output() == parked("deadline") + kHello);
  CHECK(c.probe.waiting == 0);
}

TEST_CASE("a call to an upstream is answered by its reply") {
  Connection c;
  c.driver.feed(request("/call"));
  REQUIRE(c.driver.calls().size() == 1);
  CHECK(c.driver.calls()[0].reply_size == 4);
  c.driver.reply(c.driver.calls()[0].id, {}, "pong");
  CHECK(c.driver.take_output() == answer("Content-Length: 4\r\n", "pong"));
  c.driver.feed(request("/call"));
  c.driver.reply(c.driver.calls()[1].id, std::make_error_code(std::errc::timed_out));
  CHECK(statuses(c.driver.output()) == "502");
}

TEST_CASE("what is read ahead is bounded") {
  patterns::HttpLimits limits;
  limits.pipelined = 100;
  Connection c(limits);
  c.driver.feed(request("/park"));
  c.driver.feed(std::string(100, 'x'));
  c.driver.feed("x");
  c.driver.feed(request("/plaintext"));
  c.driver.post({});
  CHECK(statuses(c.driver.output()) == "200");
  CHECK(c.driver.output().find("\r\nConnection: close\r\n") != std::string::npos);
  CHECK(c.driver.closed());

  Connection fits(limits);
  fits.driver.feed(request("/park"));
  fits.driver.feed(request("/plaintext"));
  fits.driver.post({});
  CHECK(statuses(fits.driver.output()) == "200 200");
  CHECK_FALSE(fits.driver.closed());
}

TEST_CASE("answers that nobody takes hold up the requests behind them") {
  Connection c;
  c.driver.stop_reading();
  std::string input;
  for (int i = 0; i < 10; ++i) input += request("/big?n=200000");
  c.driver.feed(input);
  CHECK(c.probe.handled == 2);
  c.driver.take(200'000);
  CHECK(c.probe.handled == 2);
  for (int i = 0; i < 20; ++i) c.driver.take(1'000'000);
  CHECK(c.probe.handled == 10);
  CHECK(c.driver.output().size() > 2'000'000);
}

TEST_CASE("100 Continue is sent when a body is awaited, and only then") {
  const std::string head = "POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\n";
  {
    Connection c;
    c.driver.feed(head + "Content-Length: 2\r\n\r\n");
    CHECK(c.driver.take_output() == "HTTP/1.1 100 Continue\r\n\r\n");
    c.driver.feed("ok");
    CHECK(c.driver.take_output() == answer("Content-Length: 2\r\n", "ok"));
  }
  const auto output_of = [](const std::string& input) {
    Connection c;
    c.driver.feed(input);
    return statuses(c.driver.output());
  };
  CHECK(output_of(head + "Transfer-Encoding: chunked\r\n\r\n") == "100");
  CHECK(output_of(head + "Content-Length: 0\r\n\r\n") == "200");
  CHECK(output_of(head + "Content-Length: 99999999\r\n\r\n") == "413");
  CHECK(output_of("POST /echo HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n") ==
        "");
}

TEST_CASE("a handler that fails becomes 500, and tells the client nothing") {
  for (const std::string path : {"/throw", "/silent"}) {
    Connection c;
    c.driver.feed(request(path) + request("/plaintext"));
    CHECK(statuses(c.driver.output()) == "500");
    CHECK(c.driver.output().find("secret") == std::string::npos);
    CHECK(c.driver.closed());
  }
  Connection c;
  c.driver.feed(request("/stream-throw"));
  CHECK(c.driver.aborted());  // not an end that looks like the answer's
}

TEST_CASE("a request that does not come in time is answered with 408") {
  Connection c;
  c.driver.pass(5s);
  // One byte a second: each is progress, and none of them buys time.
  const std::string input = request("/plaintext");
  int seconds = 0;
  for (; !c.driver.closed(); ++seconds) {
    REQUIRE(seconds < 20);
    c.driver.feed(input.substr(static_cast<std::size_t>(seconds), 1));
    c.driver.pass(1s);
  }
  CHECK(seconds == 10);
  CHECK(statuses(c.driver.output()) == "408");
  CHECK(c.driver.output().find("\r\nConnection: close\r\n") != std::string::npos);

  Connection body;
  body.driver.feed("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf");
  body.driver.pass(9s);
  CHECK_FALSE(body.driver.closed());
  body.driver.pass(1s);
  CHECK(statuses(body.driver.output()) == "408");
  CHECK(body.driver.closed());

  // A request that was read ahead has its time from when its turn comes.
  Connection late;
  late.driver.feed(request("/slow") + "GET /half");
  late.driver.pass(12s);
  CHECK(statuses(late.driver.output()) == "200");
  CHECK_FALSE(late.driver.closed());
  late.driver.pass(2s);
  CHECK(statuses(late.driver.output()) == "200 408");
}

TEST_CASE("a connection that is idle is closed in silence") {
  Connection c;
  c.driver.pass(59s);
  c.driver.feed(request("/plaintext"));
  c.driver.pass(30s);
  c.driver.feed("\r\n");  // no request
  CHECK_FALSE(c.driver.closed());
  c.driver.pass(29s);
  CHECK_FALSE(c.driver.closed());
  c.driver.pass(1s);
  CHECK(c.driver.closed());
  CHECK(c.driver.output() == kHello);
  CHECK_FALSE(c.driver.aborted());

  Connection silent;
  silent.driver.pass(60s);
  CHECK(silent.driver.closed());
  CHECK(silent.driver.output().empty());
}

TEST_CASE("a busy connection does not move its deadline with each request") {
  Connection c;
  for (int i = 0; i < 1000; ++i) {
    c.driver.feed(request("/plaintext"));
    c.driver.pass(1s);
  }
  CHECK_FALSE(c.driver.closed());
  CHECK(c.driver.deadlines() < 1000 / 50);
}

TEST_CASE("a parked request has no other deadline than its own") {
  patterns::HttpLimits limits;
  limits.idle = 1s;
  HttpServer server(1h);
  server.context.limits = limits;
  SessionDriver driver(server.session());
  driver.feed(request("/park"));
  driver.pass(59min);
  CHECK(driver.output().empty());
  CHECK(driver.deadlines() <= 1);  // the one that was set before
  driver.pass(1min);
  CHECK(driver.output() == parked("deadline"));
}

TEST_CASE("a client that takes nothing is cut off, one that takes a little is not") {
  Connection stuck;
  stuck.driver.stop_reading();
  stuck.driver.feed(request("/big?n=1000000"));
  stuck.driver.pass(29s);
  CHECK_FALSE(stuck.driver.closed());
  stuck.driver.pass(1s);
  CHECK(stuck.driver.aborted());

  Connection slow;
  slow.driver.stop_reading();
  slow.driver.feed(request("/big?n=1000"));  // surely taken by the kernel, but it is not
  slow.driver.feed(request("/big?n=1000000"));
  for (int i = 0; i < 100; ++i) {
    slow.driver.pass(20s);
    slow.driver.take(10'000);
    REQUIRE_FALSE(slow.driver.closed());
  }
  slow.driver.pass(60s);
  CHECK(slow.driver.aborted());

  // Also behind its last answer.
  Connection last;
  last.driver.stop_reading();
  last.driver.feed(request("/big?n=1000000", "Connection: close\r\n"));
  CHECK_FALSE(last.driver.closed());
  last.driver.pass(30s);
  CHECK(last.driver.aborted());

  Connection taken;
  taken.driver.stop_reading();
  taken.driver.feed(request("/big?n=1000000", "Connection: close\r\n"));
  taken.driver.take(999'000);
  CHECK(taken.driver.closed());
  CHECK_FALSE(taken.driver.aborted());
}

TEST_CASE("a client that half-closes gets all its answers") {
  Connection c;
  c.driver.feed(request("/park") + request("/plaintext") + request("/slow"));
  c.driver.eof();
  CHECK(c.probe.asked_at_eof == 1);
  CHECK_FALSE(c.driver.closed());
  c.driver.pass(10s);
  CHECK(statuses(c.driver.output()) == "200 200 200");
  CHECK(c.driver.output().ends_with("0\r\n\r\n"));
  CHECK(c.driver.closed());
  CHECK_FALSE(c.driver.aborted());

  Connection idle;
  idle.driver.feed(request("/plaintext"));
  idle.driver.eof();
  CHECK(idle.driver.output() == kHello);
  CHECK(idle.driver.closed());

  Connection half;
  half.driver.feed(request("/park") + "GET /half");
  half.driver.eof();
  half.driver.post({});
  CHECK(statuses(half.driver.output()) == "200 400");
  CHECK(half.driver.closed());
}

TEST_CASE("a client that goes leaves no waiter") {
  for (const std::string path : {"/park", "/slow", "/call"}) {
    Connection c;
    c.driver.feed(request(path));
    CHECK(c.probe.waiting == 1);
    c.driver.gone();
    CHECK(c.probe.waiting == 0);
  }
}

TEST_CASE("a server that stops lets go of what is idle, and answers what has begun") {
  Connection idle;
  idle.driver.feed(request("/plaintext"));
  idle.driver.drain();
  CHECK(idle.driver.closed());
  CHECK(idle.driver.output() == kHello);

  Connection half;
  half.driver.feed("GET /plaintext HTTP/1.1\r\n");
  half.driver.drain();
  CHECK_FALSE(half.driver.closed());
  half.driver.feed("Host: h\r\n\r\n" + request("/plaintext"));
  CHECK(statuses(half.driver.output()) == "200");
  CHECK(half.driver.output().find("\r\nConnection: close\r\n") != std::string::npos);
  CHECK(half.driver.closed());

  Connection waits;
  waits.driver.feed(request("/park") + request("/plaintext"));
  waits.driver.drain();
  CHECK(statuses(waits.driver.output()) == "503");
  CHECK(waits.driver.output().find("\r\nConnection: close\r\n") != std::string::npos);
  CHECK(waits.driver.closed());
  CHECK(waits.probe.waiting == 0);

  Connection streams;
  streams.driver.feed(request("/slow"));
  streams.driver.drain();
  CHECK(streams.driver.output().ends_with("one,\r\n0\r\n\r\n"));
  CHECK(streams.driver.closed());
}

TEST_CASE("an upgraded connection belongs to its new session") {
  Connection c;
  c.driver.feed(request("/upgrade") + "behind");
  CHECK(c.driver.take_output() ==
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: shout\r\nConnection: Upgrade\r\n\r\n<BEHIND");
  CHECK(c.driver.deadline() == kNever);
  c.driver.pass(100s);
  c.driver.feed(request("/plaintext"));
  c.driver.post({});
  CHECK(c.driver.take_output() == "GET /PLAINTEXT HTTP/1.1\r\nHOST: H\r\n\r\n(post)");
  c.driver.eof();
  CHECK(c.driver.output() == ">");
  CHECK(c.driver.closed());

  // The upgrade waits for its turn, and what came meanwhile is handed over.
  Connection late;
  late.driver.feed(request("/park") + request("/upgrade") + "be");
  late.driver.feed("hind");
  late.driver.eof();
  late.driver.post({});  // forwards what it is given, which was held and is no backend's buffer
  CHECK(late.driver.output().ends_with("\r\n\r\n<BEHIND>"));
  CHECK(late.driver.closed());
}

TEST_CASE("Date is the wall clock's, to the second") {
  Connection c;
  c.context.clock = {kFrozen, c.driver.now()};
  for (const char* time : {"08:49:37", "08:49:37", "08:49:38", "08:49:38", "08:49:39"}) {
    c.driver.feed(request("/plaintext"));
    CHECK(c.driver.take_output().find(time) != std::string::npos);
    c.driver.pass(500ms);
  }
}

}  // namespace echolab::test
