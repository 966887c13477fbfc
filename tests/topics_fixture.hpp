// A server with topics and nothing else, its connections driven by hand in virtual time.
#pragma once

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "patterns/topics.hpp"
#include "tests/catch.hpp"
#include "tests/http_reader.hpp"
#include "tests/hub_doubles.hpp"
#include "tests/session_driver.hpp"

namespace echolab::test {

struct TopicServer {
  explicit TopicServer(const patterns::HubLimits& hub_limits = {},
                       const patterns::TopicLimits& limits = {}, std::uint32_t epoch = kEpoch)
      : hub(poster, hub_limits, epoch), topics(hub, limits), http{router, {}, {}} {
    topics.add_routes(router);
  }

  RecordingPoster poster;
  patterns::Hub hub;
  patterns::Topics topics;
  patterns::Router router;
  patterns::HttpContext http;
};

// One connection.
class TopicClient {
 public:
  TopicClient(TopicServer& server, std::uint32_t slot) : driver_(make(server), conn(slot)) {}

  void send(const std::string& method, const std::string& target, const std::string& body = "",
            const std::string& fields = "") {
    response_ = ResponseReader(method == "HEAD");
    driver_.feed(fmt::format("{} {} HTTP/1.1\r\nHost: h\r\n{}Content-Length: {}\r\n\r\n{}", method,
                             target, fields, body.size(), body));
    read();
  }
  // Everything so far. Not complete: it is parked, or a stream.
  ResponseReader& read() {
    response_.feed(driver_.take_output());
    return response_;
  }
  ResponseReader& get(const std::string& target) { return send("GET", target), response_; }
  ResponseReader& post(const std::string& target, const std::string& body) {
    return send("POST", target, body), response_;
  }
  // The stream's events since the last time.
  std::vector<EventReader::Event> events() {
    stream.feed(read().take_body());
    return stream.take();
  }
  // "1:one 2:two gap"
  std::string told() {
    std::string all;
    for (const auto& event : events()) {
      const std::string number = event.id.substr(event.id.find('-') + 1);
      all += number + ":" + (event.type == "message" ? event.data : event.type) + " ";
    }
    if (!all.empty()) all.pop_back();
    return all;
  }
  SessionDriver& driver() { return driver_; }
  EventReader stream;

 private:
  static std::unique_ptr<Session> make(TopicServer& server) {
    return patterns::make_http_session(server.http);
  }
  ResponseReader response_;
  SessionDriver driver_;
};

struct TopicFixture : TopicServer {
  using TopicServer::TopicServer;
  // The clients by slot; 0 publishes.
  TopicClient& client(std::size_t slot) {
    while (clients.size() <= slot) {
      clients.push_back(
          std::make_unique<TopicClient>(*this, static_cast<std::uint32_t>(clients.size())));
    }
    return *clients[slot];
  }
  // Carries the doorbells to their connections, as a backend does.
  void deliver() {
    for (auto calls = poster.take(); !calls.empty(); calls = poster.take()) {
      for (const auto& call : calls) {
        for (const ConnId& id : call.who) {
          if (id.slot < clients.size() && clients[id.slot]) {
            clients[id.slot]->driver().post(call.post);
          }
        }
      }
    }
  }
  nlohmann::json publish(const std::string& topic, const std::string& data) {
    ResponseReader& response = client(0).post("/topics/" + topic, data);
    REQUIRE(response.status == 200);
    nlohmann::json answer = nlohmann::json::parse(response.body);
    deliver();
    return answer;
  }
  void pass(Duration duration) {
    for (auto& c : clients) {
      if (c) c->driver().pass(duration);
    }
  }
  std::vector<std::unique_ptr<TopicClient>> clients;
};

}  // namespace echolab::test
