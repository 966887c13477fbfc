#include "tests/topic_ws_clients.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "tests/ws_client.hpp"

namespace echolab::test {

using nlohmann::json;

namespace {

// Publications of one client that are on their way at the same time.
constexpr std::size_t kAtOnce = 8;
constexpr std::string_view kText = "text:";

}  // namespace

std::string ws_handshake_request(const std::string& target, bool deflate) {
  return fmt::format(
      "GET {} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{}\r\n",
      target, deflate ? "Sec-WebSocket-Extensions: permessage-deflate\r\n" : "");
}

std::vector<std::string> WsReader::feed(const std::string& bytes) {
  bytes_ += bytes;
  if (!accepted_) {
    const std::size_t end = bytes_.find("\r\n\r\n");
    if (end == std::string::npos) return {};
    if (!bytes_.starts_with("HTTP/1.1 101 ")) throw std::runtime_error("no WebSocket: " + bytes_);
    bytes_.erase(0, end + 4);
    accepted_ = true;
  }
  std::vector<std::string> lines = decode_frames(bytes_);
  for (std::string& line : lines) {
    if (line.starts_with("wrong")) throw std::runtime_error(line);
    if (line.starts_with("text*:")) line.erase(4, 1);
  }
  return lines;
}

// ---- subscribers --------------------------------------------------------------------------------

void PushSubscriber::open() {
  constexpr int kBuffers[] = {0, 4096};
  connect({.receive_buffer = kBuffers[below(2)]});
  reader_ = WsReader();
  subscribed_ = false;
  const bool deflate = one_in(2);
  if (one_in(2)) {
    send(ws_handshake_request(fmt::format("/ws?topic={}&cursor={}&policy={}", topic_, cursor_,
                                          patterns::name_of(policy_)),
                              deflate));
  } else {
    send(ws_handshake_request("/ws", deflate));
    subscribe();
  }
}

void PushSubscriber::subscribe() {
  send(text_frame(json{{"op", "subscribe"},
                       {"topic", topic_},
                       {"cursor", cursor_},
                       {"policy", patterns::name_of(policy_)}}
                      .dump()));
}

void PushSubscriber::hear(const std::string& line) {
  if (line.starts_with("ping:")) return send(encode({10, line.substr(5)}));
  if (line == "close:1013") return;  // its policy; the connection is taken up again
  if (!line.starts_with(kText)) throw std::runtime_error("unexpected: " + line);
  const json said = json::parse(line.substr(kText.size()));
  const std::string op = said.at("op");
  if (op == "unsubscribed") return subscribe();
  if (op == "subscribed") {
    if (said.at("cursor") != cursor_) throw std::runtime_error("another cursor: " + line);
    subscribed_ = true;
  } else if (op == "message") {
    cursor_ = said.at("id");
    message(cursor_, said.at("data"));
  } else if (op == "gap") {
    cursor_ = said.at("last");
    gap(said.at("first"), cursor_);
  } else {
    throw std::runtime_error("unexpected: " + line);
  }
}

bool PushSubscriber::act() {
  if (done()) return false;
  if (!peer_) open();
  if (pause_ > 0) {
    --pause_;
    world_.pass(1ms);
    return true;
  }
  const std::string bytes = receive(1 + below(64 * 1024));
  for (const std::string& line : reader_.feed(bytes)) hear(line);
  if (leave(!bytes.empty())) return true;
  if (one_in(40)) {
    pause_ = below(60);
  } else if (subscribed_ && one_in(60)) {
    // Away for a moment, on the same connection.
    send(text_frame(json{{"op", "unsubscribe"}, {"topic", topic_}}.dump()));
    subscribed_ = false;
  }
  return true;
}

// ---- publishers ---------------------------------------------------------------------------------

void PushPublisher::hear(const std::string& line) {
  if (line.starts_with("ping:")) return send(encode({10, line.substr(5)}));
  if (!line.starts_with(kText)) throw std::runtime_error("unexpected: " + line);
  const json said = json::parse(line.substr(kText.size()));
  // An error may come before its turn: one that never began to wait.
  const auto at = std::find_if(waiting_.begin(), waiting_.end(), [&](const Publication& one) {
    return one.payload.starts_with(said.at("ref").get<std::string>());
  });
  if (at == waiting_.end()) throw std::runtime_error("an answer to nothing: " + line);
  progress();
  if (said.at("op") == "published") {
    if (at != waiting_.begin()) throw std::runtime_error("published out of order: " + line);
    acknowledged(*at, said.at("id"));
  } else if (said.at("reason") == "a subscriber holds the topic up; not published") {
    again_.push_back(*at);
  } else {
    throw std::runtime_error("not published: " + line);
  }
  waiting_.erase(at);
}

bool PushPublisher::act() {
  if (!peer_) {
    connect();
    reader_ = WsReader();
    send(ws_handshake_request("/ws", one_in(2)));
  }
  bool sent = false;
  while ((has_next() || !again_.empty()) && waiting_.size() < kAtOnce && !one_in(3)) {
    if (again_.empty()) again_.push_back(next());
    waiting_.push_back(std::move(again_.front()));
    again_.pop_front();
    const Publication& one = waiting_.back();
    json said{{"op", "publish"}, {"topic", one.topic}, {"data", one.payload}};
    if (!one.key.empty()) said["key"] = one.key;
    said["ref"] = one.payload.substr(0, one.payload.find_last_of(' ') + 1);
    send(text_frame(said.dump()));
    sent = true;
  }
  for (const std::string& line : reader_.feed(receive(64 * 1024))) hear(line);
  if (done()) return false;
  // Only then: who leaves again and again while it waits for its turn never gets it.
  if (sent && one_in(20)) {
    for (Publication& one : waiting_) {
      ledger().doubt(one.topic, one.payload);
      again_.push_back(std::move(one));
    }
    waiting_.clear();
    disconnect();
  } else if (peer_->state() != Peer::State::open) {
    throw std::runtime_error("a publisher was cut off");
  }
  return true;
}

}  // namespace echolab::test
