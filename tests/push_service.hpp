// Push as a server has it: hub, router and HTTP in front, without a backend. What is posted waits
// until the test delivers it.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "patterns/push.hpp"
#include "tests/ws_line.hpp"

namespace echolab::test {

inline const std::string kHandshake =
    " HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

class PushService final : private Poster {
 public:
  static constexpr std::uint32_t kEpoch = 0xe;

  explicit PushService(const patterns::HubLimits& limits = {})
      : hub(static_cast<Poster&>(*this), limits, kEpoch), context{hub, totals, {}, {}, {}, {}} {
    patterns::add_push_routes(router, context);
  }

  std::unique_ptr<Session> session() { return patterns::make_http_session(http); }
  // A WebSocket that is open, each with an id of its own.
  std::unique_ptr<WsLine> connect(const std::string& target = "/ws", bool deflate = false) {
    const ConnId id{++last_, 1, 0};
    auto line = std::make_unique<WsLine>(session(), id);
    line->bytes("GET " + target + kHandshake +
                (deflate ? "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n" : "\r\n"));
    const std::string output = line->driver.take_output();
    const std::size_t end = output.find("\r\n\r\n");
    if (!output.starts_with("HTTP/1.1 101 ")) throw std::runtime_error("no WebSocket: " + output);
    line->push_back_output(output.substr(end + 4));
    lines_[last_] = line.get();
    return line;
  }
  // Until nothing is on its way any more. Connections that were opened must be there still.
  void deliver() {
    while (!mail_.empty()) {
      const auto [slot, post] = mail_.front();
      mail_.pop_front();
      const auto found = lines_.find(slot);
      if (found != lines_.end()) found->second->driver.post(post);
    }
  }
  // From outside: the id.
  std::string publish(const std::string& topic, const std::string& data,
                      const std::string& key = "") {
    patterns::Hub::Turn turn;
    const auto done = hub.publish(topic, key, data, {}, turn);
    if (done.refusal != patterns::Hub::Refusal::none || done.held) {
      throw std::runtime_error("not published");
    }
    deliver();
    return hub.id_of(done.number);
  }

  patterns::Hub hub;
  patterns::ConsumerTotals totals;
  patterns::PushContext context;
  patterns::Router router;
  patterns::HttpContext http{router, {}, {{}, {}}};

 private:
  void post(std::span<const ConnId> ids, const Post& post) noexcept override {
    for (const ConnId& id : ids) mail_.emplace_back(id.slot, post);
  }

  std::uint32_t last_ = 0;
  std::map<std::uint32_t, WsLine*> lines_;  // by slot
  std::deque<std::pair<std::uint32_t, Post>> mail_;
};

}  // namespace echolab::test
