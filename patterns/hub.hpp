// Topics: publish, history, subscribers. The one state that all connections share, and therefore
// the one place of the protocols that holds locks. Lock order: session, hub, mailbox; never back.
//
// A message has one id for all transports: "EPOCH-N". N counts all messages of this hub, so that it
// grows along every topic; the epoch is new with each start, so that a cursor from before a restart
// is recognised. A publisher is told the id; a subscriber that was away comes back with the last
// one that it has seen and gets what it missed from the topic's ring, or an explicit gap.
//
// Subscribers are rung, not fed: a Post without a frame says that a topic has news, and the session
// fetches them. A subscriber that has not answered the last ring is not rung again, so that the
// mail of a slow one is bounded by its subscriptions.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "backends/session.hpp"

namespace echolab::patterns {

// Transports that frame a message in their own way; each frame is made once, at first use.
enum class Transport : std::uint8_t {
  json,               // an object of a long poll's answer: {"topic":..,"id":..,"key":..,"data":..}
  sse,                // an HTTP chunk with one event: id and data
  sse_all,            // the same for "*": the data is the JSON object
  websocket,          // an unmasked text frame with the JSON object
  websocket_deflate,  // the same, compressed without context (RFC 7692)
};
inline constexpr std::size_t kTransports = 5;

struct Message {
  std::uint64_t number = 0;  // N of the id
  std::string topic;
  std::string key;   // for conflation; may be empty
  std::string data;  // UTF-8
  [[nodiscard]] std::size_t size() const { return topic.size() + key.size() + data.size(); }
};
using MessagePtr = std::shared_ptr<const Message>;

// Messages first to last (inclusive, by number) of a subscription that will not come.
struct Gap {
  std::uint64_t first = 0, last = 0;
  const char* reason = "";  // "evicted", "restarted", or the slow-consumer policy's name
};

// Every topic's subscribers get everything on it; those of kAllTopics everything on all.
inline constexpr std::string_view kAllTopics = "*";

struct HubLimits {
  std::size_t topics = 10'000;           // more: 429
  std::size_t subscriptions = 100'000;   // in all; more: 429
  std::size_t topic_name = 256;          // bytes
  std::size_t message = 64 * 1024;       // bytes of data; more: 413
  std::size_t ring_messages = 1024;      // history per topic
  std::size_t ring_bytes = 1024 * 1024;  // history per topic
};

class Hub {
 public:
  using TopicId = std::uint64_t;  // what a doorbell's Post names; never 0, below kTicket
  // Posts with this bit are answers to a session's own question (a ticket), not doorbells.
  static constexpr std::uint64_t kTicket = 1ULL << 63;

  // A place in the history: what comes behind `number`.
  struct Cursor {
    std::uint64_t number = 0;
  };
  enum class Refusal : std::uint8_t { none, topics, subscriptions, name, size, text };

  Hub(Poster& poster, const HubLimits& limits, std::uint32_t epoch);

  // One subscription; let go of when destroyed. Belongs to one session.
  class Subscription {
   public:
    Subscription() = default;
    Subscription(Subscription&& other) noexcept;
    Subscription& operator=(Subscription&& other) noexcept;
    ~Subscription();
    explicit operator bool() const { return hub_ != nullptr; }
    [[nodiscard]] TopicId topic() const { return topic_; }
    struct News {
      std::vector<MessagePtr> messages;  // in order
      std::optional<Gap> gap;            // before them
    };
    // What has come since the last call, at most `most` messages. Rings again from now on.
    News fetch(std::size_t most);
    // Holds up publishers of this topic, or lets them go on (the policy block-publisher).
    void hold(bool);

   private:
    friend class Hub;
    Hub* hub_ = nullptr;
    TopicId topic_ = 0;
    std::uint64_t token_ = 0;
    std::uint64_t seen_ = 0;
    bool restarted_ = false;
    bool held_ = false;
  };

  // From any session. `from`: nothing: what is published from now on; a cursor: what follows it.
  // `waiting`: the connection is rung. Refusal::none, or why not.
  Refusal subscribe(std::string_view topic, ConnId waiting, std::optional<Cursor> from,
                    bool retained, Subscription& subscription);

  struct Published {
    Refusal refusal = Refusal::none;
    bool held = false;  // a subscriber holds the topic up: not published; `publisher` is rung later
    std::uint64_t number = 0;
    std::size_t subscribers = 0;
  };
  // Any thread. If the topic is held up, `publisher` is rung (a Post with the topic's id) when it
  // no longer is, and may try again.
  Published publish(std::string_view topic, std::string_view key, std::string_view data,
                    ConnId publisher);

  // "EPOCH-N"
  [[nodiscard]] std::string id_of(std::uint64_t number) const;
  // "EPOCH-N", "earliest", "latest". Nothing: malformed. An id of another epoch gives a cursor
  // before everything, and the first fetch a gap with the reason "restarted".
  [[nodiscard]] std::optional<Cursor> parse_cursor(std::string_view text) const;
  // The frame of a message, made once per transport.
  Frame frame(const MessagePtr&, Transport);

  struct Topic {
    std::string name;
    std::size_t subscribers = 0;        // presence
    std::uint64_t first = 0, last = 0;  // numbers in the ring; 0: empty
    MessagePtr retained;
  };
  [[nodiscard]] std::optional<Topic> topic(std::string_view name) const;
  struct Totals {
    std::size_t topics = 0, subscriptions = 0, ring_bytes = 0;
    std::uint64_t published = 0, rings = 0;
  };
  [[nodiscard]] Totals totals() const;
  [[nodiscard]] const HubLimits& limits() const { return limits_; }

 private:
  HubLimits limits_;
};

}  // namespace echolab::patterns
