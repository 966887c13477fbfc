// The WebSocket session, rule by rule (RFC 6455, RFC 7692), in virtual time.
#include "patterns/websocket.hpp"

#include <fmt/format.h>
#include <malloc.h>

#include <functional>

#include "tests/catch.hpp"
#include "tests/world.hpp"
#include "tests/ws_line.hpp"

namespace echolab::test {
namespace {

using patterns::make_websocket;
using patterns::WebSocket;
using patterns::WsHandler;
using patterns::WsLimits;
using patterns::WsOpcode;

class EchoBack final : public WsHandler {
 public:
  void on_message(WebSocket& ws, WsOpcode type, std::string_view payload) override {
    ws.send(type, payload);
  }
};

// Large enough for the lengths of a frame's head, small enough to be crossed.
WsLimits small_limits() {
  WsLimits limits;
  limits.message = 70'000;
  return limits;
}
const WsLimits kLimits = small_limits();

std::unique_ptr<Session> echo(bool deflate = false) {
  return make_websocket(kLimits, deflate, std::make_unique<EchoBack>());
}

// What an echo answers to input that comes in the given pieces.
Lines answer(const std::vector<std::string_view>& pieces, bool deflate) {
  WsLine line(echo(deflate));
  for (const std::string_view piece : pieces) line.bytes(piece);
  return line.heard();
}

// The same at once, cut in two at every position, and byte by byte.
Lines answer_at_every_split(const std::string& input, bool deflate) {
  const std::string_view all = input;
  const Lines expected = answer({all}, deflate);
  constexpr std::size_t kEvery = 600;  // positions tried in a long input: the first ones, the last
  std::vector<std::string_view> bytes;
  for (std::size_t i = 1; i < all.size(); ++i) {
    if (i > kEvery && all.size() - i > kEvery) continue;
    if (const Lines got = answer({all.substr(0, i), all.substr(i)}, deflate); got != expected) {
      INFO("cut at " << i);
      CHECK(got == expected);
      return expected;
    }
  }
  for (std::size_t i = 0; i < all.size(); ++i) bytes.push_back(all.substr(i, 1));
  CHECK(answer(bytes, deflate) == expected);
  return expected;
}

struct Case {
  std::string name;
  std::string input;
  Lines expected;
};
void check_all(const std::vector<Case>& cases, bool deflate = false) {
  for (const Case& one : cases) {
    INFO(one.name);
    CHECK(answer_at_every_split(one.input, deflate) == one.expected);
  }
}

const Lines kProtocolError = {"close:1002", "closed"};

TEST_CASE("websocket: messages come back with their type, whatever their length's form") {
  std::vector<Case> cases = {
      {"text", text_frame("hello"), {"text:hello"}},
      {"empty text", text_frame(""), {"text:"}},
      {"binary", encode({2, std::string("\0\xff\x80", 3)}), {std::string("binary:\0\xff\x80", 10)}},
      {"two at once", text_frame("a") + text_frame("b"), {"text:a", "text:b"}},
      {"two bytes, four bytes",
       text_frame("\xc3\xa9\xf0\x9f\x98\x80"),
       {"text:\xc3\xa9\xf0\x9f\x98\x80"}},
  };
  for (const std::size_t n : {125, 126, 127, 4095, 4096, 4097, 65'535, 65'536}) {
    const std::string payload(n, 'x');
    cases.push_back({fmt::format("{} bytes", n), text_frame(payload), {"text:" + payload}});
  }
  check_all(cases);
}

TEST_CASE("websocket: fragments make one message, control frames may stand between them") {
  const std::string first = encode({1, "Hel", false});
  const std::string last = encode({0, "lo", true});
  const std::string empty = encode({0, "", false});
  check_all({
      {"two", first + last, {"text:Hello"}},
      {"empty ones", encode({1, "", false}) + empty + empty + encode({0, "", true}), {"text:"}},
      {"many", first + empty + encode({0, "-", false}) + last, {"text:Hel-lo"}},
      {"ping between",
       first + encode({9, "p"}) + empty + encode({9, ""}) + last,
       {"pong:p", "pong:", "text:Hello"}},
      {"pong between", first + encode({10, "unasked"}) + last, {"text:Hello"}},
      {"close between", first + close_frame(1000), {"close:1000", "closed"}},
      {"binary", encode({2, "\xff", false}) + encode({0, "\xfe"}), {"binary:\xff\xfe"}},
      {"one after another",
       first + last + text_frame("!") + first + last,
       {"text:Hello", "text:!", "text:Hello"}},
  });
}

TEST_CASE("websocket: a ping is answered at once and with its payload") {
  const std::string longest(125, 'p');
  check_all({
      {"empty", encode({9, ""}), {"pong:"}},
      {"125 bytes", encode({9, longest}), {"pong:" + longest}},
      {"not text", encode({9, "\xff"}), {"pong:\xff"}},
      {"in order",
       encode({9, "1"}) + text_frame("a") + encode({9, "2"}),
       {"pong:1", "text:a", "pong:2"}},
      {"a pong that nobody asked for", encode({10, "x"}) + text_frame("a"), {"text:a"}},
  });
}

TEST_CASE("websocket: frames that may not be there are answered by 1002") {
  std::vector<Case> cases = {
      {"unmasked", encode({1, "hello", true, 0, false}), kProtocolError},
      {"unmasked ping", encode({9, "x", true, 0, false}), kProtocolError},
      {"unmasked and empty", encode({1, "", true, 0, false}), kProtocolError},
      {"behind a good one", text_frame("a") + encode({3, ""}), {"text:a", "close:1002", "closed"}},
      {"what follows is not read", encode({3, ""}) + text_frame("a"), kProtocolError},
      {"continues nothing", encode({0, "x"}), kProtocolError},
      {"continues nothing, not final", encode({0, "x", false}), kProtocolError},
      {"continues a whole message",
       text_frame("a") + encode({0, "x"}),
       {"text:a", "close:1002", "closed"}},
      {"message in a message", encode({1, "a", false}) + text_frame("b"), kProtocolError},
      {"binary in a text", encode({1, "a", false}) + encode({2, "b"}), kProtocolError},
      {"ping of 126 bytes", encode({9, std::string(126, 'p')}), kProtocolError},
      {"close of 126 bytes", encode({8, std::string(126, '\x03')}), kProtocolError},
      {"fragmented ping", encode({9, "p", false}), kProtocolError},
      {"fragmented close", encode({8, "", false}), kProtocolError},
      {"16 bits for a short length", encode({1, "short", true, 0, true, 2}), kProtocolError},
      {"64 bits for a short length", encode({1, "short", true, 0, true, 8}), kProtocolError},
      {"64 bits for a medium length", encode({1, std::string(200, 'x'), true, 0, true, 8}),
       kProtocolError},
      {"a length of 2^63", std::string("\x81\xff\x80\0\0\0\0\0\0\0mask!", 15), kProtocolError},
  };
  for (const unsigned opcode : {3U, 4U, 5U, 6U, 7U, 11U, 12U, 13U, 14U, 15U}) {
    cases.push_back({fmt::format("opcode {}", opcode), encode({opcode, "x"}), kProtocolError});
    cases.push_back({fmt::format("opcode {} between fragments", opcode),
                     encode({1, "a", false}) + encode({opcode, ""}), kProtocolError});
  }
  for (unsigned rsv = 1; rsv < 8; ++rsv) {
    cases.push_back(
        {fmt::format("reserved bits {}", rsv), encode({1, "x", true, rsv}), kProtocolError});
    cases.push_back({fmt::format("reserved bits {} on a ping", rsv), encode({9, "", true, rsv}),
                     kProtocolError});
  }
  check_all(cases);
}

TEST_CASE("websocket: text that is not UTF-8 is answered by 1007") {
  const Lines bad = {"close:1007", "closed"};
  check_all({
      {"a byte that never occurs", text_frame("a\xff"), bad},
      {"overlong", text_frame("\xc0\xaf"), bad},
      {"surrogate", text_frame("\xed\xa0\x80"), bad},
      {"above U+10FFFF", text_frame("\xf4\x90\x80\x80"), bad},
      {"cut off", text_frame("\xf0\x9f\x98"), bad},
      {"cut off in a fragment", encode({1, "\xf0\x9f", false}) + encode({0, "\x98"}), bad},
      {"a character over fragments",
       encode({1, "\xf0\x9f", false}) + encode({9, "\xff"}) + encode({0, "\x98\x80"}),
       {"pong:\xff", "text:\xf0\x9f\x98\x80"}},
      {"does not go on", encode({1, "\xf0\x9f", false}) + encode({0, "x"}), bad},
      {"the next message starts anew",
       encode({2, "\xf0"}) + text_frame("a"),
       {"binary:\xf0", "text:a"}},
  });
  // It is not waited for the end of a message that cannot become good any more.
  CHECK(answer({encode({1, "\xff", false})}, false) == bad);
}

TEST_CASE("websocket: a message over the limit is answered by 1009") {
  const std::size_t limit = kLimits.message;
  const Lines too_big = {"close:1009", "closed"};
  const std::string all(limit, 'x');
  const std::string half(limit / 2, 'x');
  CHECK(answer({text_frame(all)}, false) == Lines{"text:" + all});
  CHECK(answer({encode({2, half, false}) + encode({0, half})}, false) == Lines{"binary:" + all});
  CHECK(answer({text_frame(all + 'x')}, false) == too_big);
  CHECK(answer({encode({2, half, false}) + encode({0, half, false}) + encode({0, "x"})}, false) ==
        too_big);
  // As soon as it is announced: nothing is kept for a length that will not be taken.
  CHECK(answer({std::string_view(text_frame(all + 'x')).substr(0, 15)}, false) == too_big);
  const std::string huge("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0x", 15);
  CHECK(answer_at_every_split(huge, false) == too_big);
  // Fragments' lengths do not add up to something small.
  CHECK(answer_at_every_split(encode({2, "x", false}) + std::string(1, '\0') + huge.substr(1),
                              false) == too_big);
}

TEST_CASE("websocket: a close is answered by the same, a bad one by 1002 or 1007") {
  std::vector<Case> cases = {
      {"empty", encode({8, ""}), {"close:", "closed"}},
      {"reason", close_frame(1000, "bye \xc3\xa9"), {"close:1000", "closed"}},
      {"one byte", encode({8, "\x03"}), kProtocolError},
      {"reason is not UTF-8", close_frame(1000, "\xff"), {"close:1007", "closed"}},
      {"reason is cut off", close_frame(1000, "\xc3"), {"close:1007", "closed"}},
      {"longest reason", close_frame(4000, std::string(123, 'r')), {"close:4000", "closed"}},
      {"what follows is not read",
       close_frame(1001) + text_frame("a") + encode({9, ""}),
       {"close:1001", "closed"}},
      {"messages before it count",
       text_frame("a") + close_frame(1000),
       {"text:a", "close:1000", "closed"}},
  };
  for (const unsigned code : {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013,
                              1014, 3000, 3999, 4000, 4999}) {
    cases.push_back({fmt::format("code {}", code),
                     close_frame(code),
                     {fmt::format("close:{}", code), "closed"}});
  }
  for (const unsigned code :
       {0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535}) {
    cases.push_back({fmt::format("code {}", code), close_frame(code), kProtocolError});
  }
  check_all(cases);
  WsLine line(echo());
  line.bytes(close_frame(3001, "why"));
  CHECK(line.driver.closed());
}

TEST_CASE("websocket: a stopping server says 1001 and waits a bounded time for the answer") {
  WsLine line(echo());
  line.bytes(encode({1, "half", false}));
  line.driver.drain();
  CHECK(line.heard() == Lines{"close:1001"});
  line.driver.drain();
  CHECK(line.heard().empty());
  SECTION("the peer answers") {
    // What was under way is read, and not answered any more.
    line.bytes(encode({0, "!"}) + text_frame("late") + encode({9, "late"}));
    CHECK(line.heard().empty());
    line.bytes(close_frame(1001));
    CHECK(line.heard() == Lines{"closed"});
  }
  SECTION("the peer breaks a rule") {
    line.bytes(encode({3, ""}));
    CHECK(line.heard() == Lines{"closed"});
  }
  SECTION("the peer ends the connection") {
    line.driver.eof();
    CHECK(line.heard() == Lines{"closed"});
  }
  SECTION("the peer says nothing") {
    line.driver.pass(kLimits.close - 1ms);
    CHECK(line.heard().empty());
    line.driver.pass(1ms);
    CHECK(line.heard() == Lines{"closed"});
  }
  SECTION("the peer sends for ever and never answers") {
    for (int i = 0; i < 5; ++i) {
      line.bytes(text_frame("more"));
      line.driver.pass(kLimits.close / 5);
    }
    CHECK(line.heard() == Lines{"closed"});
  }
}

TEST_CASE("websocket: a stopping server cuts off who takes nothing") {
  WsLine line(echo());
  line.driver.stop_reading();
  line.driver.drain();
  CHECK(line.heard() == Lines{"close:1001"});
  line.driver.pass(kLimits.close - 1ms);
  CHECK(line.heard().empty());
  line.driver.pass(1ms);
  CHECK(line.heard() == Lines{"aborted"});
}

TEST_CASE("websocket: who takes nothing does not keep a connection that is over") {
  WsLine line(echo());
  line.driver.stop_reading();
  line.bytes(text_frame("not taken"));
  CHECK(line.heard() == Lines{"text:not taken"});
  const auto what = GENERATE(0, 1, 2);
  if (what == 0) line.bytes(close_frame(1000));
  if (what == 1) line.bytes(encode({3, ""}));
  if (what == 2) line.driver.eof();
  const Lines said = line.heard();
  CHECK(said == (what == 0 ? Lines{"close:1000"} : what == 1 ? Lines{"close:1002"} : Lines{}));
  line.bytes(text_frame("ignored"));
  CHECK(line.heard().empty());
  SECTION("it never does") {
    line.driver.pass(kLimits.close - 1ms);
    CHECK(line.heard().empty());
    line.driver.pass(1ms);
    CHECK(line.heard() == Lines{"aborted"});
  }
  SECTION("it does") {
    line.driver.pass(1s);
    line.driver.take(1'000'000);
    line.driver.pass(100ms);
    CHECK(line.heard() == Lines{"closed"});
  }
}

TEST_CASE("websocket: an end without a close ends the connection") {
  WsLine line(echo());
  const bool half = GENERATE(false, true);
  if (half) line.bytes(std::string_view(text_frame("abc")).substr(0, 7));
  line.driver.eof();
  CHECK(line.heard() == Lines{"closed"});
}

TEST_CASE("websocket: silence is answered by a ping, and a missing pong by 1011") {
  WsLine line(echo());
  line.driver.pass(kLimits.heartbeat - 1ms);
  CHECK(line.heard().empty());
  CHECK(line.driver.deadlines() == 0);
  line.driver.pass(1ms);
  CHECK(line.heard() == Lines{"ping:1"});
  SECTION("a pong, and again") {
    line.driver.pass(1s);
    line.bytes(encode({10, "1"}));
    line.driver.pass(kLimits.heartbeat - 1ms);
    CHECK(line.heard().empty());
    line.driver.pass(1ms);
    CHECK(line.heard() == Lines{"ping:2"});
  }
  SECTION("no pong") {
    line.driver.pass(kLimits.pong - 1ms);
    CHECK(line.heard().empty());
    line.driver.pass(1ms);
    CHECK(line.heard() == Lines{"close:1011"});
    line.driver.pass(kLimits.close);
    CHECK(line.heard() == Lines{"closed"});
  }
  SECTION("another pong, or messages, are none") {
    line.bytes(encode({10, "0"}) + encode({10, ""}) + text_frame("a"));
    line.driver.pass(kLimits.pong);
    CHECK(line.heard() == Lines{"text:a", "close:1011"});
  }
  SECTION("a client in the midst of a frame may finish it first") {
    const std::string frame = text_frame("a long one");
    line.bytes(std::string_view(frame).substr(0, 8));
    line.driver.pass(kLimits.pong - 1s);
    line.bytes(std::string_view(frame).substr(8, 1));
    line.driver.pass(kLimits.pong - 1s);
    CHECK(line.heard().empty());
    line.bytes(frame.substr(9) + encode({10, "1"}));
    CHECK(line.heard() == Lines{"text:a long one"});
    line.driver.pass(kLimits.pong);
    CHECK(line.heard().empty());
  }
  SECTION("but must go on with it") {
    line.bytes(std::string_view(text_frame("a long one")).substr(0, 8));
    line.driver.pass(kLimits.pong);
    CHECK(line.heard() == Lines{"close:1011"});
  }
}

TEST_CASE("websocket: traffic moves the heartbeat and costs no wake-ups") {
  WsLine line(echo());
  for (int i = 0; i < 100; ++i) {
    line.driver.pass(1s);
    line.bytes(encode({2, ""}));
  }
  CHECK(line.heard() == Lines(100, "binary:"));
  CHECK(line.driver.deadlines() <= 4);  // one for each heartbeat's length
  line.driver.pass(kLimits.heartbeat);
  CHECK(line.heard() == Lines{"ping:1"});
}

TEST_CASE("websocket: a handler's deadline is its own") {
  struct Timed final : WsHandler {
    void on_open(WebSocket& ws) override { ws.wake_at(ws.now() + 7s); }
    void on_message(WebSocket& ws, WsOpcode, std::string_view) override { ws.wake_at(kNever); }
    void on_deadline(WebSocket& ws) override {
      ws.send(WsOpcode::text, "tick");
      ws.wake_at(ws.now() + 7s);
    }
  };
  WsLine line(make_websocket(kLimits, false, std::make_unique<Timed>()));
  line.driver.pass(28s);
  CHECK(line.heard() == Lines(4, "text:tick"));
  line.driver.pass(2s);
  CHECK(line.heard() == Lines{"ping:1"});
  line.bytes(encode({10, "1"}) + text_frame("stop"));
  line.driver.pass(29s);
  CHECK(line.heard().empty());
}

TEST_CASE("websocket: a handler is gone as soon as the connection is closing") {
  struct Counted final : WsHandler {
    explicit Counted(int& alive) : alive_(alive) { ++alive_; }
    ~Counted() override { --alive_; }
    void on_message(WebSocket& ws, WsOpcode, std::string_view payload) override {
      ws.close(1008, payload);
      ws.send(WsOpcode::text, "too late");
      CHECK(alive_ == 1);
    }
    int& alive_;
  };
  int alive = 0;
  WsLine line(make_websocket(kLimits, false, std::make_unique<Counted>(alive)));
  CHECK(alive == 1);
  const std::string reason(200, 'r');  // more than fits
  line.bytes(text_frame(reason) + text_frame("b"));
  CHECK(alive == 0);
  CHECK(line.heard() == Lines{"close:1008"});
  line.driver.post({});
  line.bytes(close_frame(1008));
  CHECK(line.heard() == Lines{"closed"});
}

TEST_CASE("websocket: an idle connection keeps no buffers") {
  constexpr std::size_t kSessions = 1000;
  constexpr std::size_t kEach = 512;  // bytes; a reader alone has 4 KiB
  std::vector<std::unique_ptr<WsLine>> lines;
  lines.reserve(kSessions);
  const std::string talk = text_frame(std::string(20'000, 'x')) + encode({9, "?"}) +
                           encode({2, deflated(std::string(20'000, 'y')), false, 4}) +
                           encode({0, "", true});
  const std::size_t before = mallinfo2().uordblks;
  for (std::size_t i = 0; i < kSessions; ++i) {
    lines.push_back(std::make_unique<WsLine>(echo(true)));
    lines.back()->bytes(talk);
    REQUIRE(lines.back()->heard().size() == 3);
  }
  const std::size_t after = mallinfo2().uordblks;
  // A sanitizer's allocator is not the one that is measured.
  if (scaled(1, 0) == 1) CHECK((after - before) / kSessions < kEach + sizeof(WsLine));
}

// ---- permessage-deflate -------------------------------------------------------------------------

std::string compressed_frame(std::string_view message) {
  return encode({1, deflated(message), true, 4});
}

TEST_CASE("websocket deflate: messages are inflated, and answers deflated where that is shorter") {
  const std::string longer(1000, 'z');
  const std::string packed = deflated(longer);
  check_all(
      {
          {"compressed", compressed_frame(longer), {"text*:" + longer}},
          {"not compressed", text_frame(longer), {"text*:" + longer}},
          {"short", compressed_frame("Hello"), {"text:Hello"}},
          {"the RFC's example",
           encode({1, "\xf2\x48\xcd\xc9\xc9\x07" + std::string(1, '\0'), true, 4}),
           {"text:Hello"}},
          {"the RFC's stored block",
           encode({1, std::string("\0\x05\0\xfa\xffHello\0", 11), true, 4}),
           {"text:Hello"}},
          {"the RFC's final block",
           encode({1, std::string("\xf3\x48\xcd\xc9\xc9\x07\0\0", 8), true, 4}),
           {"text:Hello"}},
          {"the RFC's two blocks",
           encode({1, std::string("\xf2\x48\x05\0\0\0\xff\xff\xca\xc9\xc9\x07\0", 13), true, 4}),
           {"text:Hello"}},
          {"empty", encode({1, std::string(1, '\0'), true, 4}), {"text:"}},
          {"fragments, only the first with RSV1",
           encode({1, packed.substr(0, 3), false, 4}) + encode({9, "p"}) + encode({0, "", false}) +
               encode({0, packed.substr(3)}),
           {"pong:p", "text*:" + longer}},
          {"each message on its own",
           compressed_frame(longer) + text_frame("a") + compressed_frame(longer),
           {"text*:" + longer, "text:a", "text*:" + longer}},
      },
      true);
}

TEST_CASE("websocket deflate: what may not be compressed, and what does not inflate") {
  const std::string packed = deflated(std::string(1000, 'z'));
  const Lines bad = {"close:1007", "closed"};
  check_all(
      {
          {"RSV1 on a later fragment", encode({1, "a", false, 4}) + encode({0, "b", true, 4}),
           kProtocolError},
          {"RSV1 on a ping", encode({9, "", true, 4}), kProtocolError},
          {"RSV1 on a close", encode({8, "", true, 4}), kProtocolError},
          {"RSV2", encode({1, packed, true, 6}), kProtocolError},
          {"RSV3", encode({1, packed, true, 5}), kProtocolError},
          {"reserved block type", encode({1, "\x07", true, 4}), bad},
          {"text", encode({1, "hello there", true, 4}), bad},
          {"cut off", encode({1, packed.substr(0, packed.size() - 3), true, 4}), bad},
          {"nothing, not even a block", encode({2, "", true, 4}), bad},
          {"not UTF-8 inside", compressed_frame(std::string(100, '\xff')), bad},
          {"cut off UTF-8 inside", compressed_frame(std::string(100, 'x') + "\xc3"), bad},
          {"a stored block of wrong length",
           encode({1, std::string("\0\x05\0\0\0Hello\0", 11), true, 4}), bad},
      },
      true);
}

TEST_CASE("websocket deflate: what inflates to more than the limit is answered by 1009") {
  const std::size_t limit = kLimits.message;
  const std::string all(limit, 'x');
  const Lines too_big = {"close:1009", "closed"};
  CHECK(answer({compressed_frame(all)}, true) == Lines{"text*:" + all});
  CHECK(answer_at_every_split(compressed_frame(all + 'x'), true) == too_big);
  // A thousand to one, and in many small frames.
  const std::string bomb = deflated(std::string(64 * 1024 * 1024, '\0'));
  REQUIRE(bomb.size() <= limit);
  CHECK(answer({encode({2, bomb, true, 4})}, true) == too_big);
  // What inflates to nothing has an end too: empty blocks without end.
  WsLine line(echo(true));
  std::string nothing;
  for (int i = 0; i < 1000; ++i) nothing.append(std::string_view("\0\0\0\xff\xff", 5));
  line.bytes(encode({2, nothing, false, 4}));
  for (std::size_t i = 0; i < limit / nothing.size() + 1 && !line.driver.closed(); ++i) {
    line.bytes(encode({0, nothing, false}));
  }
  CHECK(line.heard() == too_big);
  // What cannot be compressed is a little longer than it is.
  std::string noise(limit, '\0');
  std::uint32_t x = 1;
  for (char& c : noise) c = static_cast<char>((x = x * 1664525 + 1013904223) >> 24);
  const std::string stored = deflated(noise);
  REQUIRE(stored.size() > limit);
  CHECK(answer({encode({2, stored, true, 4})}, true) == Lines{"binary:" + noise});
}

TEST_CASE("websocket frames: as the server makes them") {
  std::string bytes = patterns::ws_text_frame("hi");
  CHECK(bytes == "\x81\x02hi");
  for (const std::size_t n : {0, 1, 125, 126, 65'535, 65'536, 200'000}) {
    const std::string payload(n, 'x');
    bytes = patterns::ws_text_frame(payload) + patterns::ws_deflated_text_frame(payload) +
            patterns::ws_deflated_text_frame("n" + std::to_string(n));
    const Lines lines = decode_frames(bytes);
    CHECK(bytes.empty());
    CHECK(lines == Lines{"text:" + payload, (n > 100 ? "text*:" : "text:") + payload,
                         "text:n" + std::to_string(n)});
  }
}

}  // namespace
}  // namespace echolab::test
