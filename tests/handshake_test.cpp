// The opening handshake (RFC 6455, 4.2; RFC 7692, 7.1) over the HTTP session.
#include "patterns/ws_handshake.hpp"

#include <fmt/format.h>

#include "patterns/push.hpp"
#include "tests/catch.hpp"
#include "tests/push_service.hpp"

namespace echolab::test {
namespace {

using patterns::ws_accept;
using patterns::ws_agree_on_deflate;

// A good handshake, but for the lines that are replaced: "Name: value", or "Name:" to leave one
// out, or more of the same.
std::string request(const std::vector<std::string>& changes = {},
                    std::string line = "GET /ws/echo HTTP/1.1") {
  std::vector<std::pair<std::string, std::string>> fields = {
      {"Host", "example.org:8080"},    {"Upgrade", "websocket"},
      {"Connection", "Upgrade"},       {"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="},
      {"Sec-WebSocket-Version", "13"},
  };
  for (const std::string& change : changes) {
    const std::string name = change.substr(0, change.find(':'));
    std::erase_if(fields, [&](const auto& field) { return field.first == name; });
  }
  std::string text = line + "\r\n";
  for (const auto& [name, value] : fields) text += fmt::format("{}: {}\r\n", name, value);
  for (const std::string& change : changes) {
    if (!change.ends_with(":")) text += change + "\r\n";
  }
  return text + "\r\n";
}

std::string answer(const std::string& text, std::vector<std::string> origins = {}) {
  PushService service;
  service.context.origins = std::move(origins);
  SessionDriver driver(service.session());
  driver.feed(text);
  return driver.output();
}
std::string status(const std::string& text, std::vector<std::string> origins = {}) {
  const std::string output = answer(text, std::move(origins));
  REQUIRE(output.starts_with("HTTP/1.1 "));
  return output.substr(9, 3);
}
bool has_line(const std::string& output, std::string_view line) {
  return output.find(fmt::format("\r\n{}\r\n", line)) != std::string::npos;
}

TEST_CASE("handshake: the RFC's example, and variations that mean the same") {
  CHECK(ws_accept("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
  const std::string output = answer(request());
  CHECK(output.starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
  CHECK(has_line(output, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
  CHECK(has_line(output, "Upgrade: websocket"));
  CHECK(has_line(output, "Connection: Upgrade"));
  CHECK(output.find("Sec-WebSocket-Extensions") == std::string::npos);
  CHECK(output.find("Content-Length") == std::string::npos);
  CHECK(output.ends_with("\r\n\r\n"));
  CHECK(status(request({"Connection: keep-alive, Upgrade"})) == "101");
  CHECK(status(request({"Connection: UPGRADE"})) == "101");
  CHECK(status(request({"Upgrade: h2c, WebSocket"})) == "101");
  // None of these is spoken, and a client may go on without.
  CHECK(answer(request({"Sec-WebSocket-Protocol: chat, superchat"})).find("Protocol:") ==
        std::string::npos);
}

TEST_CASE("handshake: requests that are none") {
  for (const char* change : {"Upgrade:", "Upgrade: h2c", "Sec-WebSocket-Version:",
                             "Sec-WebSocket-Version: 8", "Sec-WebSocket-Version: 013"}) {
    INFO(change);
    const std::string output = answer(request({change}));
    CHECK(output.starts_with("HTTP/1.1 426 Upgrade Required\r\n"));
    CHECK(has_line(output, "Sec-WebSocket-Version: 13"));
    CHECK(has_line(output, "Upgrade: websocket"));
    CHECK(has_line(output, "Connection: upgrade"));
  }
  for (const char* change : {"Connection:", "Connection: keep-alive", "Sec-WebSocket-Key:",
                             "Sec-WebSocket-Key: abc", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=",
                             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ===",
                             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZTE=",
                             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j!Q=="}) {
    INFO(change);
    CHECK(status(request({change})) == "400");
  }
  CHECK(status(request({"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="})) == "400");
  CHECK(status(request({}, "GET /ws/echo HTTP/1.0")) == "426");
  CHECK(status(request({}, "POST /ws/echo HTTP/1.1")) == "405");
  CHECK(status(request({"Content-Length: 2"}) + "hi") == "400");
  // The connection goes on as HTTP.
  CHECK(status(request({"Upgrade:"}) + request()) == "426");
}

TEST_CASE("handshake: a page may connect if it is of this host or on the list") {
  const auto from = [](const std::string& origin) { return request({"Origin: " + origin}); };
  CHECK(status(from("http://example.org:8080")) == "101");
  CHECK(status(from("http://EXAMPLE.org:8080")) == "101");
  for (const char* origin : {"http://example.org", "http://evil.example:8080", "null", "",
                             "http://example.org:8080.evil.example", "example.org:8080"}) {
    INFO(origin);
    CHECK(status(from(origin)) == "403");
  }
  // What browsers leave out.
  CHECK(status(request({"Host: a.example", "Origin: http://a.example"})) == "101");
  CHECK(status(request({"Host: a.example:80", "Origin: http://a.example"})) == "101");
  CHECK(status(request({"Host: a.example:443", "Origin: https://a.example"})) == "101");
  CHECK(status(request({"Host: a.example:443", "Origin: http://a.example"})) == "403");
  CHECK(status(request({"Origin: http://example.org:8080", "Origin: http://b.example"})) == "403");

  const std::vector<std::string> list = {"https://a.example", "http://b.example:81"};
  CHECK(status(from("https://a.example"), list) == "101");
  CHECK(status(from("http://b.example:81"), list) == "101");
  CHECK(status(from("http://a.example"), list) == "403");
  CHECK(status(from("http://example.org:8080"), list) == "403");
  CHECK(status(request(), list) == "101");
  CHECK(status(from("null"), {"*"}) == "101");
}

TEST_CASE("handshake: the first offer of compression that can be honoured") {
  const std::string plain =
      "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
  const std::string windowed = plain + "; server_max_window_bits=15";
  const std::vector<std::pair<std::string, std::optional<std::string>>> cases = {
      {"permessage-deflate", plain},
      {"permessage-deflate; client_max_window_bits", plain},
      {"permessage-deflate; client_max_window_bits=8", plain},
      {"permessage-deflate;client_max_window_bits=\"15\"", plain},
      {"permessage-deflate; server_no_context_takeover; client_no_context_takeover", plain},
      {"permessage-deflate; server_max_window_bits=15", windowed},
      {"permessage-deflate; server_max_window_bits=10, permessage-deflate", plain},
      {"x-webkit-deflate-frame, permessage-deflate", plain},
      {"foo; bar=\"baz\", , permessage-deflate", plain},
      {"", std::nullopt},
      {"x-webkit-deflate-frame", std::nullopt},
      {"permessage-deflate; server_max_window_bits=14", std::nullopt},
      {"permessage-deflate; server_max_window_bits", std::nullopt},
      {"permessage-deflate; client_max_window_bits=7", std::nullopt},
      {"permessage-deflate; client_max_window_bits=16", std::nullopt},
      {"permessage-deflate; client_max_window_bits=08", std::nullopt},
      {"permessage-deflate; client_max_window_bits; client_max_window_bits", std::nullopt},
      {"permessage-deflate; server_no_context_takeover=1", std::nullopt},
      {"permessage-deflate; unknown", std::nullopt},
      {"permessage-deflate; =1", std::nullopt},
      {"permessage-deflate; client_max_window_bits=", std::nullopt},
      {"permessage-deflate; client_max_window_bits=\"15", std::nullopt},
      {"permessage-deflate permessage-deflate", std::nullopt},
  };
  for (const auto& [offers, expected] : cases) {
    INFO(offers);
    CHECK(ws_agree_on_deflate(offers) == expected);
  }
  const std::string output = answer(
      request({"Sec-WebSocket-Extensions: foo", "Sec-WebSocket-Extensions: permessage-deflate"}));
  CHECK(has_line(output, "Sec-WebSocket-Extensions: " + plain));
}

TEST_CASE("handshake: bytes behind the request are the WebSocket's, cut anywhere") {
  const std::string longer(300, 'x');
  const std::string input = request({"Sec-WebSocket-Extensions: permessage-deflate"}) +
                            text_frame(longer) + encode({9, "p"}) + close_frame(1000);
  const std::string expected = answer(input);
  std::string frames = expected.substr(expected.find("\r\n\r\n") + 4);
  CHECK(decode_frames(frames) == Lines{"text*:" + longer, "pong:p", "close:1000"});
  CHECK(frames.empty());
  PushService service;
  for (std::size_t i = 1; i < input.size(); ++i) {
    SessionDriver driver(service.session());
    driver.feed(std::string_view(input).substr(0, i));
    driver.feed(std::string_view(input).substr(i));
    if (driver.output() == expected && driver.closed()) continue;
    INFO("cut at " << i);
    CHECK(driver.output() == expected);
    CHECK(driver.closed());
  }
  SessionDriver driver(service.session());
  driver.feed_each_byte(input);
  CHECK(driver.output() == expected);
}

TEST_CASE("handshake: more WebSockets than allowed get 503") {
  PushService service;
  service.context.push.connections = 2;
  SessionDriver a(service.session()), b(service.session()), c(service.session());
  a.feed(request());
  b.feed(request());
  CHECK(service.context.connections == 2);
  c.feed(request());
  CHECK(c.output().starts_with("HTTP/1.1 503 "));
  b.feed(close_frame(1000));
  c.take_output();
  c.feed(request());
  CHECK(c.output().starts_with("HTTP/1.1 101 "));
  c.gone();
  a.gone();
  CHECK(service.context.connections == 0);
}

}  // namespace
}  // namespace echolab::test
