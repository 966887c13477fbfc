// The delivery oracle's clients that speak WebSocket: publishers and subscribers, slow ones too,
// and all of them lose their connections at random.
#pragma once

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "tests/topic_clients.hpp"

namespace echolab::test {

// GET with everything that a WebSocket's handshake needs.
std::string ws_handshake_request(const std::string& target, bool deflate);

// What a server says on a WebSocket, bytes cut anywhere. Throws std::runtime_error on everything
// that is not accepted, or is not a frame.
class WsReader {
 public:
  // As those of decode_frames, whether a message came compressed or not.
  std::vector<std::string> feed(const std::string& bytes);

 private:
  bool accepted_ = false;
  std::string bytes_;
};

class PushSubscriber final : public TopicSubscriber {
 public:
  PushSubscriber(World& world, std::uint64_t seed, const Ledger& ledger, std::string topic,
                 patterns::Policy policy, std::string start)
      : TopicSubscriber(world, seed, ledger, std::move(topic)),
        policy_(policy),
        cursor_(std::move(start)) {}

 private:
  bool act() override;
  void open();
  void subscribe();
  void hear(const std::string& line);

  const patterns::Policy policy_;
  std::string cursor_;
  bool subscribed_ = false;
  std::size_t pause_ = 0;  // steps in which it does not read
  WsReader reader_;
};

class PushPublisher final : public TopicPublisher {
 public:
  using TopicPublisher::TopicPublisher;

 private:
  bool act() override;
  void hear(const std::string& line);

  std::deque<Publication> again_;    // not published, to be sent once more
  std::deque<Publication> waiting_;  // for their answers, in this order
  WsReader reader_;
};

}  // namespace echolab::test
