// Which handler gets a request, and what requests and responses are made of.
#include "patterns/router.hpp"

#include "tests/catch.hpp"
#include "tests/http_probe.hpp"
#include "tests/session_driver.hpp"

namespace echolab::test {
namespace {

using patterns::Answer;
using patterns::Captures;
using patterns::Request;

// The body names the route, and what was captured.
struct Routed {
  Routed() {
    add("GET", "/");
    add("GET", "/jobs");
    add("POST", "/jobs");
    add("GET", "/jobs/{id}");
    add("DELETE", "/jobs/{id}");
    add("GET", "/topics/{topic}/events");
    add("GET", "/{a}/{b}/last");
  }
  void add(const std::string& method, const std::string& pattern) {
    router.add(method, pattern, "about " + pattern,
               [=](const Request&, const Captures& captures, Answer& answer) {
                 std::string body = method + " " + pattern;
                 for (const std::string& c : captures) body += " [" + c + "]";
                 answer.send({200, {}, body});
               });
  }
  std::string ask(const std::string& method, const std::string& target) {
    SessionDriver driver(patterns::make_http_session(context));
    driver.feed(method + " " + target + " HTTP/1.1\r\nHost: h\r\n\r\n");
    output = driver.output();
    return statuses(output);
  }
  [[nodiscard]] std::string body() const { return output.substr(output.find("\r\n\r\n") + 4); }
  [[nodiscard]] std::string allow() const {
    const auto at = output.find("\r\nAllow: ");
    if (at == std::string::npos) return "";
    return output.substr(at + 9, output.find("\r\n", at + 9) - at - 9);
  }

  patterns::Router router;
  patterns::HttpContext context{router, {}, {kFrozen, {}, true}};
  std::string output;
};

}  // namespace

TEST_CASE("the router finds the resource, or says why not") {
  Routed r;
  CHECK(r.ask("GET", "/") == "200");
  CHECK(r.body() == "GET /");
  CHECK(r.ask("GET", "/jobs?x=/jobs/3") == "200");
  CHECK(r.body() == "GET /jobs");
  CHECK(r.ask("GET", "/jobs/a%2Fb+c") == "200");
  CHECK(r.body() == "GET /jobs/{id} [a/b+c]");
  CHECK(r.ask("DELETE", "/jobs/7") == "200");
  CHECK(r.body() == "DELETE /jobs/{id} [7]");
  CHECK(r.ask("GET", "/a/%e2%82%ac/last") == "200");
  CHECK(r.body() == "GET /{a}/{b}/last [a] [\xe2\x82\xac]");
  for (const char* nothing : {"/job", "/jobs/", "/jobs/7/", "/jobs/7/8", "//", "/topics//events",
                              "/topics/t/events/", "/topics/t"}) {
    INFO(nothing);
    CHECK(r.ask("GET", nothing) == "404");
  }
  for (const char* bad : {"/jobs/%", "/jobs/%4", "/jobs/%zz", "/jobs/%4z"}) {
    INFO(bad);
    CHECK(r.ask("GET", bad) == "400");
  }
}

TEST_CASE("a resource that is nothing without a body asks for its length") {
  Routed r;
  r.router.add(
      "POST", "/needs", "",
      [](const Request& request, const Captures&, Answer& answer) {
        answer.send({200, {}, fmt::format("{} bytes", request.body.size())});
      },
      patterns::Router::Body::needed);
  const auto ask = [&](const std::string& more) {
    SessionDriver driver(patterns::make_http_session(r.context));
    driver.feed("POST /needs HTTP/1.1\r\nHost: h\r\n" + more);
    r.output = driver.output();
    return statuses(r.output);
  };
  CHECK(ask("\r\n") == "411");
  CHECK(ask("Content-Length: 0\r\n\r\n") == "200");
  CHECK(r.body() == "0 bytes");
  CHECK(ask("Content-Length: 2\r\n\r\nab") == "200");
  CHECK(ask("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n") == "200");
  // Nothing is wrong with the connection: there was no body, and the next request is read.
  CHECK(ask("\r\nGET /jobs HTTP/1.1\r\nHost: h\r\n\r\n") == "411 200");
  CHECK(r.ask("POST", "/jobs") == "200");  // needs none
}

TEST_CASE("the router knows what a resource allows") {
  Routed r;
  CHECK(r.ask("HEAD", "/jobs/7") == "200");
  CHECK(r.body().empty());
  CHECK(r.ask("PUT", "/jobs/7") == "405");
  CHECK(r.allow() == "GET, HEAD, DELETE, OPTIONS");
  CHECK(r.ask("OPTIONS", "/jobs") == "204");
  CHECK(r.allow() == "GET, HEAD, POST, OPTIONS");
  CHECK(r.ask("OPTIONS", "*") == "204");
  CHECK(r.allow() == "GET, HEAD, POST, DELETE, OPTIONS");
  CHECK(r.ask("OPTIONS", "/nothing") == "404");
  CHECK(r.ask("PUT", "/nothing") == "404");
  CHECK(r.ask("PURGE", "/jobs") == "501");
  CHECK(r.ask("get", "/jobs") == "501");
  const auto index = r.router.index();
  REQUIRE(index.size() == 7);
  CHECK(index[3].method == "GET");
  CHECK(index[3].pattern == "/jobs/{id}");
  CHECK(index[3].about == "about /jobs/{id}");
}

TEST_CASE("a request's fields and parameters") {
  const std::vector<patterns::Field> fields = {
      {"Prefer", "respond-async, Wait=3"}, {"X", "1"}, {"prefer", ",handling=lenient"}};
  const Request r{"GET", "/", "a=1&b=%41+%2B&c&a=2&=e&d=%4&f%20g=h", "", fields};
  CHECK(r.field("PREFER") == "respond-async, Wait=3");
  CHECK(r.field("Y").data() == nullptr);
  CHECK(r.lists("Prefer", "wait=3"));
  CHECK(r.lists("Prefer", "handling=lenient"));
  CHECK_FALSE(r.lists("Prefer", "respond"));
  CHECK_FALSE(r.lists("Y", ""));
  std::string value;
  CHECK((r.parameter("a", value) && value == "1"));
  CHECK((r.parameter("b", value) && value == "A +"));
  CHECK((r.parameter("c", value) && value.empty()));
  CHECK((r.parameter("f g", value) && value == "h"));
  CHECK_FALSE(r.parameter("d", value));
  CHECK_FALSE(r.parameter("e", value));
}

TEST_CASE("dates, chunks and reasons") {
  using namespace std::chrono;
  const auto date = [](seconds s) { return patterns::http_date(system_clock::time_point(s)); };
  CHECK(date(784111777s) == "Sun, 06 Nov 1994 08:49:37 GMT");
  CHECK(date(0s) == "Thu, 01 Jan 1970 00:00:00 GMT");
  CHECK(date(1709251199s) == "Thu, 29 Feb 2024 23:59:59 GMT");
  CHECK(date(4102444800s) == "Fri, 01 Jan 2100 00:00:00 GMT");
  const auto chunk = patterns::as_chunk(std::string(26, 'x'));
  CHECK(std::string(reinterpret_cast<const char*>(chunk->data()), chunk->size()) ==
        "1a\r\n" + std::string(26, 'x') + "\r\n");
  CHECK(std::string(patterns::reason_of(404)) == "Not Found");
  CHECK(std::string(patterns::reason_of(505)) == "HTTP Version Not Supported");
  CHECK(std::string(patterns::reason_of(299)).empty());
}

}  // namespace echolab::test
