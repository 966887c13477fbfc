// WebSockets over every backend: the same bytes give the same bytes, and what is published reaches
// everybody.
#include <fmt/format.h>

#include "patterns/push.hpp"
#include "tests/world.hpp"
#include "tests/ws_line.hpp"

namespace echolab::test {
namespace {

class PushServer final : public Service {
 public:
  explicit PushServer(Poster& poster) : hub(poster, {}, 0xe) {
    patterns::add_push_routes(router_, context);
  }
  std::unique_ptr<Session> accept() override { return patterns::make_http_session(http_); }
  [[nodiscard]] bool pushes() const override { return true; }

  patterns::Hub hub;
  patterns::ConsumerTotals totals;
  patterns::PushContext context{hub, totals, {}, {}, {}, {}};

 private:
  patterns::Router router_;
  patterns::HttpContext http_{router_, {}, {{}, {}}};
};

std::string handshake(const std::string& target) {
  return "GET " + target +
         " HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
         "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
}
const std::string kAccepted =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; "
    "client_no_context_takeover\r\nConnection: Upgrade\r\n\r\n";

// A client with its WebSocket open.
class Client {
 public:
  Client(World& world, const std::string& target) : peer_(world.connect()) {
    send(handshake(target));
    const Blob head = peer_->read(kAccepted.size());
    REQUIRE(difference(blob_of(kAccepted), head) == "");
  }
  void send(const std::string& bytes) { peer_->send(blob_of(bytes)); }
  // The next n frames, whether compressed or not.
  Lines hear(std::size_t n) {
    Lines lines;
    while (lines.size() < n) {
      for (std::string& line : decode_frames(bytes_)) {
        if (line.starts_with("text*:")) line.erase(4, 1);
        lines.push_back(std::move(line));
      }
      if (lines.size() >= n) break;
      const Blob one = peer_->read(1);
      bytes_.push_back(static_cast<char>(one[0]));
    }
    return lines;
  }
  // What is left until the server ends the connection.
  Lines hear_all() {
    const Blob rest = peer_->read_all();
    bytes_.append(reinterpret_cast<const char*>(rest.data()), rest.size());
    return decode_frames(bytes_);
  }

 private:
  std::unique_ptr<Peer> peer_;
  std::string bytes_;
};

CONFORMANCE(ws_transcript, "a WebSocket's transcript is the same however it is cut", Over::all) {
  const std::string longer(3000, 'x');
  const std::string input = handshake("/ws/echo") + text_frame("a") +
                            encode({1, deflated(longer), true, 4}) + encode({2, "b", false}) +
                            encode({9, "p"}) + encode({0, "c"}) + close_frame(1000, "bye");
  auto world = make_world(target);
  world->start(std::make_unique<PushServer>(world->backend()));
  Blob expected;
  for (std::size_t cut = 0; cut < input.size(); cut += 23) {
    auto peer = world->connect();
    peer->send(blob_of(std::string_view(input).substr(0, cut)));
    // Enough for some of it to be read on its own; it does not matter whether it is.
    if (cut % 2 == 0) world->pass(1ms);
    peer->send(blob_of(std::string_view(input).substr(cut)));
    const Blob got = peer->read_all();
    if (cut == 0) {
      expected = got;
      std::string text(reinterpret_cast<const char*>(got.data()), got.size());
      REQUIRE(text.starts_with(kAccepted));
      text.erase(0, kAccepted.size());
      CHECK(decode_frames(text) ==
            Lines{"text:a", "text*:" + longer, "pong:p", "binary:bc", "close:1000"});
    }
    INFO("cut at " << cut);
    REQUIRE(difference(expected, got) == "");
  }
  world->finish();
}

CONFORMANCE(ws_push, "what one client publishes, all subscribers hear in order", Over::all) {
  auto world = make_world(target);
  auto service = std::make_unique<PushServer>(world->backend());
  patterns::PushContext& context = service->context;
  world->start(std::move(service));
  const std::size_t messages = scaled(100, 30);
  std::vector<std::unique_ptr<Client>> subscribers;
  for (int i = 0; i < 5; ++i) {
    subscribers.push_back(
        std::make_unique<Client>(*world, i % 2 == 0 ? "/ws?topic=t" : "/ws?topic=*"));
    CHECK(subscribers.back()->hear(1)[0].starts_with(R"(text:{"op":"subscribed")"));
  }
  Client publisher(*world, "/ws");
  std::string all;
  for (std::size_t i = 1; i <= messages; ++i) {
    all += text_frame(fmt::format(R"({{"op":"publish","topic":"t","data":"{}"}})", i));
  }
  publisher.send(all);
  const Lines answers = publisher.hear(messages);
  for (auto& subscriber : subscribers) {
    const Lines heard = subscriber->hear(messages);
    for (std::size_t i = 1; i <= messages; ++i) {
      REQUIRE(answers[i - 1] == fmt::format(R"(text:{{"op":"published","id":"0000000e-{}"}})", i));
      REQUIRE(heard[i - 1] ==
              fmt::format(R"(text:{{"op":"message","id":"0000000e-{0}","topic":"t","data":"{0}"}})",
                          i));
    }
  }
  subscribers.pop_back();
  subscribers[0]->send(close_frame(1000));
  CHECK(subscribers[0]->hear_all() == Lines{"close:1000"});
  CHECK(world->eventually([&] { return context.hub.totals().subscriptions == 3; }));
  // A stopping server says so, and waits for the answer.
  world->backend().stop(24h);
  for (auto* client :
       {subscribers[1].get(), subscribers[2].get(), subscribers[3].get(), &publisher}) {
    CHECK(client->hear(1) == Lines{"close:1001"});
    client->send(close_frame(1001));
    CHECK(client->hear_all().empty());
  }
  subscribers.clear();
  CHECK(world->eventually([&] { return world->run_returned(); }));
  CHECK(context.connections == 0);
  world->finish();
}

}  // namespace
}  // namespace echolab::test
