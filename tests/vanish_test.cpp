// Clients that vanish at any moment: whatever they had begun, and however it ends, nothing of
// theirs is left in the hub, and no place stays taken.
#include <fmt/format.h>

#include "patterns/push.hpp"
#include "tests/topic_ws_clients.hpp"
#include "tests/topics_fixture.hpp"
#include "tests/ws_client.hpp"

namespace echolab::test {
namespace {

using namespace std::chrono_literals;
using namespace patterns;

// Everything about topics, with one subscriber that holds up the topic "held".
struct VanishServer : TopicServer {
  VanishServer() {
    add_push_routes(router, push);
    const Hub::Join blocks = {{}, false, true};
    REQUIRE(hub.subscribe("held", conn(90), blocks, holder) == Hub::Refusal::none);
    holder.fetch(kAnyRoom);
    holder.hold(true);
    publish("t", "old");
  }
  void publish(const std::string& topic, const std::string& data) {
    Hub::Turn turn;
    REQUIRE(hub.publish(topic, "", data, conn(91), turn).number > 0);
  }
  void deliver(SessionDriver& driver, std::uint32_t slot) {
    for (auto calls = poster.take(); !calls.empty(); calls = poster.take()) {
      for (const auto& call : calls) {
        for (const ConnId& id : call.who) {
          if (id.slot == slot) driver.post(call.post);
        }
      }
    }
  }
  // "waiters streams websockets", as a scrape has them.
  [[nodiscard]] std::string places() const {
    MetricsText metrics;
    topics.metrics(metrics);
    add_push_metrics(metrics, push);
    const std::string text = metrics.text();
    std::string all;
    for (const char* name :
         {"\necholab_topic_waiters ", "\necholab_event_streams ", "\necholab_websockets "}) {
      const std::size_t at = text.find(name) + std::string_view(name).size();
      all += text.substr(at, text.find('\n', at) - at) + " ";
    }
    all.pop_back();
    return all;
  }

  PushContext push{hub, topics.consumers(), {}, {}, {}, {}};
  Hub::Subscription holder;
};

std::string post_to(const std::string& topic) {
  return "POST /topics/" + topic + " HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx";
}
std::string get_from(const std::string& target) {
  return "GET " + target + " HTTP/1.1\r\nHost: h\r\n\r\n";
}

struct Conversation {
  const char* what;
  std::string input;
  const char* places;  // taken when all of it is said
};
std::vector<Conversation> conversations() {
  return {
      {"long poll", get_from("/topics/t?max_wait=60s"), "1 0 0"},
      {"long poll of everything", get_from("/topics/*?min_bytes=1000"), "1 0 0"},
      {"event stream", get_from("/topics/t/events?cursor=earliest"), "0 1 0"},
      {"event stream that blocks", get_from("/topics/t/events?policy=block-publisher"), "0 1 0"},
      {"held publish", post_to("held"), "1 0 0"},
      {"held publish behind a poll", get_from("/topics/t?cursor=earliest") + post_to("held"),
       "1 0 0"},
      {"WebSocket",
       ws_handshake_request("/ws?topic=t&retained=true", true) +
           text_frame(R"({"op":"subscribe","topic":"*","policy":"block-publisher"})") +
           text_frame(R"({"op":"publish","topic":"held","data":"x"})") +
           text_frame(R"({"op":"publish","topic":"t","data":"y"})"),
       "0 0 1"},
  };
}

TEST_CASE("vanish: at every byte, in every way, nothing is left") {
  enum class Way { reset, eof_then_reset, drain_then_reset, silent };
  for (const Conversation& one : conversations()) {
    for (const Way way : {Way::reset, Way::eof_then_reset, Way::drain_then_reset, Way::silent}) {
      for (std::size_t cut = 0; cut <= one.input.size(); ++cut) {
        INFO(one.what << ", way " << static_cast<int>(way) << ", cut at " << cut);
        VanishServer server;
        {
          SessionDriver driver(make_http_session(server.http), conn(1));
          driver.feed(std::string_view(one.input).substr(0, cut));
          server.deliver(driver, 1);
          if (cut == one.input.size()) REQUIRE(server.places() == one.places);
          // Rung, and gone before the bell is heard.
          if (cut % 2 == 1) server.publish("other", "news");
          if (way == Way::eof_then_reset) driver.eof();
          if (way == Way::drain_then_reset) driver.drain();
          if (way == Way::silent) {
            driver.stop_reading();
            driver.pass(10min);
            // Found out without a word from the kernel.
            REQUIRE(driver.closed());
            REQUIRE(server.places() == "0 0 0");
          }
          if (!driver.closed()) server.deliver(driver, 1);
        }
        REQUIRE(server.places() == "0 0 0");
        REQUIRE(server.hub.totals().subscriptions == 1);
        REQUIRE(server.topics.consumers().queued_bytes == 0);
        // Nobody stands in the line before the topic any more, and nobody else holds one up.
        server.poster.take();
        server.holder.hold(false);
        REQUIRE(server.poster.take().empty());
        server.publish("held", "z");
        server.publish("t", "z");
      }
    }
  }
}

}  // namespace
}  // namespace echolab::test
