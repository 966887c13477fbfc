// HTTP and WebSocket, from bytes to requests and messages and back. Warm, as in sessions.cpp.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <random>

#include "harness/benchmarks/entry.hpp"
#include "patterns/http.hpp"
#include "patterns/http_head.hpp"
#include "patterns/request_parser.hpp"
#include "patterns/ws_frames.hpp"

namespace echolab::benchmarks {
namespace {

using namespace patterns;

const std::string kGet =
    "GET /plaintext HTTP/1.1\r\nHost: localhost:8080\r\nAccept: text/plain,*/*;q=0.1\r\n"
    "User-Agent: echolab\r\nConnection: keep-alive\r\n\r\n";
const std::string kPost =
    "POST /topics/news HTTP/1.1\r\nHost: localhost:8080\r\nContent-Type: text/plain\r\n"
    "Content-Length: 1024\r\n\r\n" +
    std::string(1024, 'x');

// The parser may change its input, as it lies in a receive buffer: each time it gets a fresh copy,
// which a recv would have made.
void http_parse(benchmark::State& state, const std::string& text) {
  const HttpLimits limits;
  std::string input = text;
  for (auto _ : state) {
    std::copy(text.begin(), text.end(), input.begin());
    auto parser = RequestParser::borrow(limits);
    std::span<char> left(input);
    while (!left.empty()) {
      const std::size_t used = parser->feed(left);
      if (used == 0) break;
      left = left.subspan(used);
    }
    if (parser->state() != RequestParser::State::complete) {
      return state.SkipWithError("the request was not parsed");
    }
    benchmark::DoNotOptimize(parser->request().path.data());
    RequestParser::give_back(std::move(parser));
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(text.size()));
}

void http_encode(benchmark::State& state) {
  const Response response = text(200, "Hello, World!");
  HeadFacts facts;
  facts.length = response.body.size();
  std::chrono::system_clock::time_point now{};
  Out out;
  for (auto _ : state) {
    now += std::chrono::microseconds(10);  // as at 100 000 requests/s: a new Date now and then
    facts.now = now;
    write_head(out, response, facts);
    write_text(out, response.body);
    benchmark::DoNotOptimize(out.bytes(0).data());
    out.clear();
    benchmark::ClobberMemory();
  }
}

// A whole request of one connection: parsed, handled, answered.
void http_session(benchmark::State& state) {
  struct Hello final : Handler {
    void handle(const Request&, Answer& answer) override {
      answer.send(text(200, "Hello, World!"));
    }
  };
  Hello hello;
  const HttpContext context{hello, {}, {}};
  const std::unique_ptr<Session> session = make_http_session(context);
  std::string input = kGet;
  Out out;
  session->on_open(out, {}, Time{});
  out.clear();
  Time now{};
  for (auto _ : state) {
    now += std::chrono::microseconds(10);
    std::copy(kGet.begin(), kGet.end(), input.begin());
    session->on_bytes(out, std::as_writable_bytes(std::span(input)), now);
    if (out.total() == 0) return state.SkipWithError("the request was not answered");
    benchmark::DoNotOptimize(out.bytes(0).data());
    out.clear();
  }
  session->on_close({});
}

std::string payload(std::size_t size) {
  std::mt19937 random(1);
  std::string out(size, ' ');
  for (char& c : out) c = static_cast<char>('a' + random() % 26);
  return out;
}

// A client's frame (RFC 6455, 5.2): the server's, with the mask bit, a key and the payload masked.
std::string masked_frame(const std::string& text) {
  constexpr std::string_view kKey = "\x12\x34\x56\x78";
  std::string frame = ws_head(WsOpcode::text, text.size());
  frame[1] = static_cast<char>(frame[1] | 0x80);
  frame += kKey;
  for (std::size_t i = 0; i < text.size(); ++i) {
    frame += static_cast<char>(text[i] ^ kKey[i % kKey.size()]);
  }
  return frame;
}

void websocket_parse(benchmark::State& state, std::size_t size) {
  const std::string frame = masked_frame(payload(size));
  WsFrameReader reader;
  for (auto _ : state) {
    reader.feed(std::as_bytes(std::span(frame)));
    std::size_t seen = 0;
    WsFrameReader::Piece piece;
    while (reader.next(piece) == WsFrameReader::Result::piece) {
      seen += piece.data.size();
      benchmark::DoNotOptimize(piece.data.data());
    }
    if (seen != size) return state.SkipWithError("the frame was not read");
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(size));
}

void websocket_encode(benchmark::State& state, std::size_t size) {
  const std::string text = payload(size);
  for (auto _ : state) {
    std::string frame = ws_text_frame(text);
    benchmark::DoNotOptimize(frame.data());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(size));
}

// Of letters drawn at random: worse to compress than prose, better than what is compressed already.
void websocket_deflate(benchmark::State& state, std::size_t size) {
  const std::string text = payload(size);
  for (auto _ : state) {
    std::string frame = ws_deflated_text_frame(text);
    benchmark::DoNotOptimize(frame.data());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(size));
}

}  // namespace

void add_protocols(std::vector<Entry>& out) {
  out.push_back({"http/parse/get", [](benchmark::State& s) { http_parse(s, kGet); }});
  out.push_back({"http/parse/post", [](benchmark::State& s) { http_parse(s, kPost); }});
  out.push_back({"http/encode", http_encode});
  out.push_back({"http/session", http_session});
  for (const std::size_t size : {64U, 4096U}) {
    const auto add = [&](const char* name, void (*run)(benchmark::State&, std::size_t)) {
      out.push_back({fmt::format("websocket/{}/s{}", name, size),
                     [=](benchmark::State& state) { run(state, size); }});
    };
    add("parse", websocket_parse);
    add("encode", websocket_encode);
    add("deflate", websocket_deflate);
  }
}

}  // namespace echolab::benchmarks
