// What a request must look like: each rule by input and expected answer, and every input cut at
// every position, which must not make a difference.
#include <fmt/format.h>

#include "tests/catch.hpp"
#include "tests/http_probe.hpp"
#include "tests/session_driver.hpp"

namespace echolab::test {
namespace {

using namespace std::string_literals;

struct Case {
  std::string input;
  std::string statuses;  // of all answers; an answer of 4xx or 5xx here closes the connection
};

struct Outcome {
  std::string output;
  bool closed = false;
  friend bool operator==(const Outcome&, const Outcome&) = default;
};

// Limits small enough to be reached with few bytes.
patterns::HttpLimits small_limits() {
  patterns::HttpLimits limits;
  limits.target = 40;
  limits.header = 300;
  limits.fields = 8;
  limits.body = 64;
  return limits;
}

enum class Cuts { none, one, each_byte };

Outcome run(const std::string& input, Cuts cuts, std::size_t cut = 0) {
  HttpServer server;
  server.context.limits = small_limits();
  SessionDriver driver(server.session());
  if (cuts == Cuts::each_byte) {
    driver.feed_each_byte(input);
  } else {
    driver.feed(input, std::span(&cut, cuts == Cuts::one ? 1 : 0));
  }
  return {driver.output(), driver.closed()};
}

void check(const Case& c) {
  INFO(c.input);
  const Outcome whole = run(c.input, Cuts::none);
  CHECK(statuses(whole.output) == c.statuses);
  const auto last =
      c.statuses.empty() ? std::string("000") : c.statuses.substr(c.statuses.size() - 3);
  const bool refused = last >= "400" && last != "404";
  if (refused) CHECK(whole.closed);
  CHECK(run(c.input, Cuts::each_byte) == whole);
  for (std::size_t cut = 1; cut < c.input.size(); ++cut) {
    if (run(c.input, Cuts::one, cut) == whole) continue;
    FAIL_CHECK(fmt::format("cut at {}: {}", cut, run(c.input, Cuts::one, cut).output));
  }
}

std::string get(const std::string& lines) {
  return "GET /see HTTP/1.1\r\nHost: h\r\n" + lines + "\r\n";
}
std::string post(const std::string& lines_and_body) {
  return "POST /echo HTTP/1.1\r\nHost: h\r\n" + lines_and_body;
}
std::string chunked(const std::string& body) {
  return post("Transfer-Encoding: chunked\r\n\r\n" + body);
}
const std::string kNext = "GET /plaintext HTTP/1.1\r\nHost: h\r\n\r\n";

}  // namespace

TEST_CASE("request lines are taken or refused, however they are cut") {
  for (const Case& c : std::vector<Case>{
           {"GET /plaintext HTTP/1.1\r\nHost: h\r\n\r\n", "200"},
           {"\r\nGET /plaintext HTTP/1.1\r\nHost: h\r\n\r\n", "200"},
           {"\r\n\r\nGET /plaintext HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
           {"GET /plaintext HTTP/1.7\r\nHost: h\r\n\r\n" + kNext, "200 200"},
           {"GET /plaintext HTTP/1.0\r\n\r\n", "200"},
           {"GET /plaintext HTTP/2.0\r\nHost: h\r\n\r\n", "505"},
           {"GET /plaintext HTTP/0.9\r\nHost: h\r\n\r\n", "505"},
           {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"},
           {"GET /plaintext HTTP/1.10\r\nHost: h\r\n\r\n", "400"},
           {"GET /plaintext http/1.1\r\nHost: h\r\n\r\n", "400"},
           {"GET /plaintext HTTP/1\r\nHost: h\r\n\r\n", "400"},
           {"GET /plaintext\r\nHost: h\r\n\r\n", "400"},
           {"GET\r\n\r\n", "400"},
           {" GET /plaintext HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
           {"GET  /plaintext HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
           {"GET /plaintext  HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
           {"GET /plain text HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
           {"GET /plaintext HTTP/1.1 \r\nHost: h\r\n\r\n", "400"},
           {"GET\t/plaintext\tHTTP/1.1\r\nHost: h\r\n\r\n", "400"},
           {"G(T /plaintext HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
           {"GET /pl\0in HTTP/1.1\r\nHost: h\r\n\r\n"s, "400"},
           {"GET /pl\x01in HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
           {"GET /pl\x7fin HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
           {"GET /pl\xc3\xa4in HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
           {"GET /plaintext#part HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
           {"GET plaintext HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
           {"GET * HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
           {"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "404"},
           {"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n", "501"},
           {"GET http://h:80/plaintext HTTP/1.1\r\nHost: h\r\n\r\n", "200"},
           {"GET HTTPS://h/plaintext HTTP/1.1\r\nHost: h\r\n\r\n", "200"},
           {"GET ftp://h/plaintext HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
           {"GET http:///plaintext HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
           {"GET http://me@h/plaintext HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
           {"GET /" + std::string(39, 'a') + " HTTP/1.1\r\nHost: h\r\n\r\n", "404"},
           {"GET /" + std::string(40, 'a') + " HTTP/1.1\r\nHost: h\r\n\r\n", "414"},
           {"GET /" + std::string(500, 'a'), "414"},
           {std::string(301, 'G'), "431"},
       }) {
    check(c);
  }
}

TEST_CASE("header fields are taken or refused, however they are cut") {
  const std::string filling(300 - get("X: \r\n").size(), 'x');
  for (const Case& c : std::vector<Case>{
           {get("X:y\r\n"), "200"},
           {get("X: \t y \t \r\n"), "200"},
           {get("X:\r\n"), "200"},
           {get("X: \xc3\xa4\r\n"), "200"},
           {get("X : y\r\n"), "400"},
           {get("X\t: y\r\n"), "400"},
           {get(": y\r\n"), "400"},
           {get("no colon\r\n"), "400"},
           {get("X: a\r\n b\r\n"), "400"},
           {get("X: a\r\n\tb\r\n"), "400"},
           {get(" X: a\r\n"), "400"},
           {get("X(: a\r\n"), "400"},
           {get("X: a\0b\r\n"s), "400"},
           {get("X: a\x01z\r\n"), "400"},
           {get("X: a\x7fz\r\n"), "400"},
           {get("X: a\rY: b\r\n"), "400"},
           {get("X: a\nY: b\r\n"), "400"},
           {"GET /see HTTP/1.1\nHost: h\n\n", "400"},
           {"GET /see HTTP/1.1\r\nHost: h\n\r\n", "400"},
           {"GET /see HTTP/1.1\r\nHost: h\r\n\n", "400"},
           {"GET /see HTTP/1.1\r\nHost: h\r\r\n\r\n", "400"},
           {"GET /see HTTP/1.1\r\n\r\n", "400"},
           {"GET /see HTTP/1.1\r\nHost: h\r\nhost: h\r\n\r\n", "400"},
           {"GET /see HTTP/1.0\r\nHost: h\r\nhost: h\r\n\r\n", "400"},
           {"GET /see HTTP/1.1\r\nHost:\r\n\r\n", "200"},
           {"GET /see HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "200"},
           {"GET /see HTTP/1.1\r\nHost: h/x\r\n\r\n", "400"},
           {"GET /see HTTP/1.1\r\nHost: a b\r\n\r\n", "400"},
           {"GET /see HTTP/1.1\r\nHost: me@h\r\n\r\n", "400"},
           {get("A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: 5\r\nF: 6\r\nG: 7\r\n"), "200"},
           {get("A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: 5\r\nF: 6\r\nG: 7\r\nH: 8\r\n"), "431"},
           {get("X: " + filling + "\r\n"), "200"},
           {get("X: " + filling + "x\r\n"), "431"},
           {get("X: " + filling + filling + filling), "431"},
           {get("Expect: 200-ok\r\n"), "417"},
       }) {
    check(c);
  }
}

TEST_CASE("the length of a body has one meaning, or the request is refused") {
  for (const Case& c : std::vector<Case>{
           {post("Content-Length: 5\r\n\r\nhello") + kNext, "200 200"},
           {post("Content-Length: 0\r\n\r\n") + kNext, "200 200"},
           {post("Content-Length: 0005\r\n\r\nhello") + kNext, "200 200"},
           {post("\r\n") + kNext, "200 200"},
           {post("Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"), "400"},
           {post("Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"), "400"},
           {post("Content-Length: 5, 5\r\n\r\nhello"), "400"},
           {post("Content-Length: +5\r\n\r\nhello"), "400"},
           {post("Content-Length: -5\r\n\r\nhello"), "400"},
           {post("Content-Length: 0x5\r\n\r\nhello"), "400"},
           {post("Content-Length: 5 5\r\n\r\nhello"), "400"},
           {post("Content-Length: 5.0\r\n\r\nhello"), "400"},
           {post("Content-Length:\r\n\r\nhello"), "400"},
           {post("Content-Length: 18446744073709551621\r\n\r\nhello"), "400"},
           {post("Content-Length: 18446744073709551615\r\n\r\nhello"), "413"},
           {post("Content-Length: 64\r\n\r\n") + std::string(64, 'x'), "200"},
           {post("Content-Length: 65\r\n\r\n") + std::string(65, 'x'), "413"},
           {post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), "400"},
           {post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"), "400"},
           {post("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"), "501"},
           {post("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), "501"},
           {post("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"), "501"},
           {post("Transfer-Encoding: identity\r\n\r\n"), "501"},
           {post("Transfer-Encoding:\r\n\r\n0\r\n\r\n"), "501"},
           {post("Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"), "501"},
           {post("Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"), "501"},
           {post("Transfer-Encoding: \x0b"
                 "chunked\r\n\r\n0\r\n\r\n"),
            "400"},
           {post("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"), "400"},
           {post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            "400"},
           {post("Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n") + kNext, "200 200"},
           {"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
       }) {
    check(c);
  }
}

TEST_CASE("chunks are taken or refused, however they are cut") {
  const std::string zeros(200, '0');
  for (const Case& c : std::vector<Case>{
           {chunked("5\r\nhello\r\n0\r\n\r\n") + kNext, "200 200"},
           {chunked("5\r\nhello\r\n6\r\n world\r\n000\r\n\r\n") + kNext, "200 200"},
           {chunked("0\r\n\r\n") + kNext, "200 200"},
           {chunked("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n"), "200"},
           {chunked("5;name=value;flag\r\nhello\r\n0;last\r\n\r\n"), "200"},
           {chunked("5;name=\"a;b\"\r\nhello\r\n0\r\n\r\n"), "200"},
           {chunked("5\r\nhello\r\n0\r\nA: b\r\nC: d\r\n\r\n") + kNext, "200 200"},
           {chunked(zeros + "5\r\nhello\r\n0\r\n\r\n"), "200"},
           {chunked(zeros + zeros + "5\r\nhello\r\n0\r\n\r\n"), "400"},
           {chunked("5;" + zeros + zeros + "\r\nhello\r\n0\r\n\r\n"), "400"},
           {chunked("5;" + zeros + zeros), "400"},
           {chunked("\r\nhello\r\n0\r\n\r\n"), "400"},
           {chunked("x\r\nhello\r\n0\r\n\r\n"), "400"},
           {chunked("0x5\r\nhello\r\n0\r\n\r\n"), "400"},
           {chunked("-5\r\nhello\r\n0\r\n\r\n"), "400"},
           {chunked(" 5\r\nhello\r\n0\r\n\r\n"), "400"},
           {chunked("5 \r\nhello\r\n0\r\n\r\n"), "400"},
           {chunked("5 5\r\nhello\r\n0\r\n\r\n"), "400"},
           {chunked("5\nhello\r\n0\r\n\r\n"), "400"},
           {chunked("5\rX\r\nhello\r\n0\r\n\r\n"), "400"},
           {chunked("5;a\nb\r\nhello\r\n0\r\n\r\n"), "400"},
           {chunked("5;a\rb\r\nhello\r\n0\r\n\r\n"), "400"},
           {chunked("5\r\nhelloX\r\n0\r\n\r\n"), "400"},
           {chunked("5\r\nhello\n0\r\n\r\n"), "400"},
           {chunked("5\r\nhello0\r\n\r\n"), "400"},
           {chunked("6\r\nhello\r\n0\r\n\r\n"), "400"},
           {chunked("FFFFFFFFFFFFFFFF\r\nhello"), "413"},
           {chunked("10000000000000000\r\nhello"), "400"},
           {chunked("10000000000000005\r\nhello\r\n0\r\n\r\n"), "400"},
           {chunked("41\r\n" + std::string(65, 'x') + "\r\n0\r\n\r\n"), "413"},
           {chunked("20\r\n" + std::string(32, 'x') + "\r\n21\r\n"), "413"},
           {chunked("0\r\nA : b\r\n\r\n"), "400"},
           {chunked("0\r\nA: b\r\n c\r\n\r\n"), "400"},
           {chunked("0\r\nA: b\n\r\n"), "400"},
           {chunked("0\r\n\n"), "400"},
           {chunked("0\r\nno colon\r\n\r\n"), "400"},
           {chunked("0\r\nContent-Length: 5\r\n\r\nhello"), "400"},
           {chunked("0\r\nTransfer-Encoding: chunked\r\n\r\n"), "400"},
           {chunked("0\r\nHost: other\r\n\r\n"), "400"},
           {chunked("0\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\n\r\n"), "200"},
           {chunked("0\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\n\r\n"), "431"},
           {chunked("0\r\nA: " + std::string(300, 'a') + "\r\n\r\n"), "431"},
           {chunked("0\r\nA: " + std::string(300, 'a')), "431"},
       }) {
    check(c);
  }
}

TEST_CASE("answers of all kinds are the same however the requests are cut") {
  for (const Case& c : std::vector<Case>{
           {kNext + post("Content-Length: 2\r\n\r\nok") + chunked("2\r\nok\r\n0\r\n\r\n") + kNext,
            "200 200 200 200"},
           {"HEAD /plaintext HTTP/1.1\r\nHost: h\r\n\r\n" + kNext, "200 200"},
           {"GET /stream HTTP/1.1\r\nHost: h\r\n\r\n" + kNext, "200 200"},
           {"HEAD /slow HTTP/1.1\r\nHost: h\r\n\r\n" + kNext, "200 200"},
           {"GET /stream HTTP/1.0\r\n\r\n" + kNext, "200"},
           {post("Expect: 100-continue\r\nContent-Length: 2\r\n\r\nok") + kNext, "100 200 200"},
           {"GET /park HTTP/1.1\r\nHost: h\r\n\r\n" + kNext, ""},
           {"GET /upgrade HTTP/1.1\r\nHost: h\r\n\r\nwhat comes behind", "101"},
           {"GET /throw HTTP/1.1\r\nHost: h\r\n\r\n" + kNext, "500"},
           {"GET /status?n=204 HTTP/1.1\r\nHost: h\r\n\r\n" + kNext, "204 200"},
           {kNext + "GET /nothing HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" + kNext,
            "200 404"},
           {kNext + "GET /half", "200"},
       }) {
    check(c);
  }
}

TEST_CASE("a handler sees the request as it was sent") {
  const auto seen = [](const std::string& input) {
    const std::string output = run(input, Cuts::none).output;
    return output.substr(output.find("\r\n\r\n") + 4);
  };
  CHECK(seen("GET /see?a=b?c HTTP/1.1\r\nHost: h\r\nX-Y:\t z  z \r\n\r\n") ==
        "GET /see?a=b?c 1.1\nHost=h\nX-Y=z  z\n");
  CHECK(seen("PURGE http://other/see?q HTTP/1.1\r\nHost: h\r\n\r\n") ==
        "PURGE /see?q 1.1\nHost=h\n");
  CHECK(seen("GET /see HTTP/1.0\r\n\r\n") == "GET /see? 1.0\n");
  CHECK(seen("POST /see HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
             "2\r\nab\r\n1\r\nc\r\n0\r\nTrailer: t\r\n\r\n") ==
        "POST /see? 1.1\nHost=h\nTransfer-Encoding=chunked\nabc");
}

}  // namespace echolab::test
