// Topics: publish, history, subscribers. The one state that all connections share, and therefore
// the one place of the protocols that holds a lock. Lock order: session, hub, mailbox; never back.
// Doorbells are posted after the hub's lock is released.
//
// A message has one id for all transports: "EPOCH-N". N counts all messages of this hub, so that it
// grows along every topic; the epoch is new with each start, so that a cursor from before a restart
// is recognised. A publisher is told the id; a subscriber that was away comes back with the last
// one that it has seen and gets what it missed from the topic's ring, or an explicit gap.
//
// Subscribers are rung, not fed: a Post without a frame says that a topic has news, and the session
// fetches them. A subscriber that has not answered the last ring is not rung again, so that the
// mail of a slow one is bounded by its subscriptions.
//
// A ring never evicts its newest message: it is the topic's retained one. A topic without a message
// ends with its last subscriber.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/session.hpp"

namespace echolab::patterns {

// Transports that frame a message in their own way; each frame is made once, at first use.
enum class Transport : std::uint8_t {
  json,               // an object of a long poll's answer: {"id":..,"topic":..,"key":..,"data":..}
  sse,                // an HTTP chunk with one event: id and data
  sse_all,            // the same for "*": the data is the JSON object
  websocket,          // an unmasked text frame with the JSON object
  websocket_deflate,  // the same, compressed without context (RFC 7692)
};
inline constexpr std::size_t kTransports = 5;

class Message {
 public:
  Message(std::uint64_t number_, std::string topic_, std::string key_, std::string data_)
      : number(number_), topic(std::move(topic_)), key(std::move(key_)), data(std::move(data_)) {}

  const std::uint64_t number;  // N of the id
  const std::string topic;
  const std::string key;   // for conflation; may be empty
  const std::string data;  // UTF-8
  [[nodiscard]] std::size_t size() const { return topic.size() + key.size() + data.size(); }
  // Bytes in memory, frames aside: each of those that are in use comes on top, as long as this; of
  // control characters, which JSON writes as six, or line ends, six or seven times as long.
  [[nodiscard]] std::size_t footprint() const { return sizeof(Message) + size(); }

 private:
  friend class Hub;
  mutable std::array<std::once_flag, kTransports> made_;
  mutable std::array<Frame, kTransports> frames_;
};
using MessagePtr = std::shared_ptr<const Message>;

// Messages first to last (inclusive, by number) of a subscription that will not come.
struct Gap {
  std::uint64_t first = 0, last = 0;  // first 0: since before this hub, its ids are unknown
  const char* reason = "";  // "evicted", "restarted", or the slow-consumer policy's name; static
  friend bool operator==(const Gap&, const Gap&) = default;
};

// Every topic's subscribers get everything on it; those of kAllTopics everything on all.
inline constexpr std::string_view kAllTopics = "*";

struct HubLimits {
  // More: 429. Those with a retained message stay, so that it takes a restart to get rid of them.
  std::size_t topics = 10'000;
  std::size_t subscriptions = 100'000;   // in all; more: 429
  std::size_t topic_name = 256;          // bytes
  std::size_t key = 256;                 // bytes
  std::size_t message = 64 * 1024;       // bytes of data; more: 413
  std::size_t ring_messages = 1024;      // history per topic
  std::size_t ring_bytes = 1024 * 1024;  // history per topic, as footprints
  // History of all topics, as footprints: the oldest goes first. When only retained messages are
  // left and they do not fit: 429.
  std::size_t history_bytes = 256 * 1024 * 1024;
};

class Hub {
  struct Topic;
  struct Entry;

 public:
  using TopicId = std::uint64_t;  // what a doorbell's Post names; never 0, below kTicket
  // Posts with this bit are answers to a session's own question (a ticket), not doorbells.
  static constexpr std::uint64_t kTicket = 1ULL << 63;

  // A place in the history.
  struct Cursor {
    enum class From : std::uint8_t {
      latest,     // what is published from now on
      earliest,   // all that the ring has
      after,      // what comes behind `number`
      restarted,  // an id of another epoch: all that the ring has, and a gap before it
    };
    From from = From::latest;
    std::uint64_t number = 0;
  };
  enum class Refusal : std::uint8_t {
    none,
    name,           // 400: not 1 to limits.topic_name bytes of printable ASCII without '/'; or "*"
                    // to publish
    key,            // 400: too long or not UTF-8
    text,           // 400: not UTF-8
    size,           // 413
    topics,         // 429: too many
    subscriptions,  // 429: too many
    history,        // 429: no room for one more retained message
  };

  // The poster must outlive the last subscription.
  Hub(Poster& poster, const HubLimits& limits, std::uint32_t epoch);
  Hub(const Hub&) = delete;
  Hub& operator=(const Hub&) = delete;
  ~Hub() = default;

  struct Room {
    std::size_t messages = 0;
    std::size_t bytes = 0;  // Message::size
    bool one = true;        // one message may be larger than that, if it is the only one
  };
  struct News {
    std::optional<Gap> gap;            // before the messages
    std::vector<MessagePtr> messages;  // in order
    bool more = false;                 // there is more to fetch at once
    bool live = false;  // everything from before the subscription has been fetched by now
  };

  // One subscription; let go of when destroyed. Belongs to one session, which fetches once after
  // subscribing, as if it had been rung.
  class Subscription {
   public:
    Subscription() = default;
    Subscription(Subscription&& other) noexcept;
    Subscription& operator=(Subscription&& other) noexcept;
    ~Subscription();
    explicit operator bool() const { return hub_ != nullptr; }
    [[nodiscard]] TopicId topic() const;
    // The number behind which the next fetch begins.
    [[nodiscard]] std::uint64_t cursor() const;
    // What has come since the last call, as much as there is room for. Rings again from now on, at
    // the next publish.
    News fetch(const Room& room);
    // Holds up publishers of this topic, or lets them go on (the policy block-publisher).
    void hold(bool);

   private:
    friend class Hub;
    Hub* hub_ = nullptr;
    Topic* topic_ = nullptr;
    std::list<Entry>::iterator entry_;
  };

  struct Join {
    Cursor from;
    bool retained = false;  // with Cursor::latest: begin with the topic's last message
    // Publishers of the topic wait rather than evict what this subscriber has not fetched. Those of
    // others do not: when the history of all topics is full, this one's goes too, as a gap, for
    // else whoever blocks many topics and reads none would end the publishing on all.
    bool blocks = false;
  };
  // From any session. `who`: the connection that is rung. Refusal::none, or why not.
  Refusal subscribe(std::string_view topic, ConnId who, const Join& join,
                    Subscription& subscription);

  // A publisher's place before a topic that is held up; let go of when destroyed.
  class Turn {
   public:
    Turn() = default;
    Turn(Turn&& other) noexcept;
    Turn& operator=(Turn&& other) noexcept;
    ~Turn();
    explicit operator bool() const { return hub_ != nullptr; }

   private:
    friend class Hub;
    struct Place {
      ConnId who;
      bool called = false;
    };
    Hub* hub_ = nullptr;
    Topic* topic_ = nullptr;
    std::list<Place>::iterator place_;
  };

  struct Published {
    Refusal refusal = Refusal::none;
    bool held = false;  // a subscriber holds the topic up: not published
    std::uint64_t number = 0;
    std::size_t subscribers = 0;  // of the topic and of "*"
  };
  // Any thread. If it is held up, `turn` is taken for `publisher`, which is rung (a Post without a
  // frame) when it may try again.
  Published publish(std::string_view topic, std::string_view key, std::string_view data,
                    ConnId publisher, Turn& turn);

  // "EPOCH-N": 8 hexadecimal digits and a decimal number.
  [[nodiscard]] std::string id_of(std::uint64_t number) const;
  // An id, "earliest" or "latest". Nothing: malformed, or an id that was never given.
  [[nodiscard]] std::optional<Cursor> parse_cursor(std::string_view text) const;
  // The frame of a message, made once per transport.
  [[nodiscard]] Frame frame(const MessagePtr&, Transport) const;

  struct TopicInfo {
    std::string name;
    std::size_t subscribers = 0;        // presence
    std::uint64_t first = 0, last = 0;  // numbers in the ring; 0: empty
    MessagePtr retained;                // the last message; null if there is none
  };
  [[nodiscard]] std::optional<TopicInfo> topic(std::string_view name) const;
  // In the order of their names, at most so many.
  [[nodiscard]] std::vector<TopicInfo> topics(std::size_t most) const;

  struct Totals {
    std::size_t topics = 0, subscriptions = 0;
    std::size_t history_bytes = 0;  // footprints
    std::uint64_t published = 0, rings = 0, evicted = 0, held = 0;
  };
  [[nodiscard]] Totals totals() const;
  [[nodiscard]] const HubLimits& limits() const { return limits_; }

 private:
  struct Entry {
    ConnId who;
    std::uint64_t seen = 0;    // fetched up to here
    std::uint64_t joined = 0;  // the last message when it subscribed
    bool restarted = false;    // its cursor was of another epoch, and it has not been told yet
    bool blocks = false;
    bool holds = false;
    bool rung = true;  // which of the topic's two lists it is in
  };
  struct Topic {
    TopicId id = 0;
    std::string name;
    std::deque<MessagePtr> ring;
    std::size_t bytes = 0;        // of the ring, footprints
    std::uint64_t evicted = 0;    // the last number that has left the ring
    std::list<Entry> quiet;       // to be rung at the next message
    std::list<Entry> rung;        // not back since they were rung
    std::size_t blockers = 0;     // entries with `blocks`
    std::size_t holds = 0;        // entries with `holds`
    std::list<Turn::Place> line;  // publishers that wait
    [[nodiscard]] std::size_t subscribers() const { return quiet.size() + rung.size(); }
  };
  struct Call {  // doorbells to post when the lock is released
    TopicId topic;
    std::vector<ConnId> who;
  };

  // With the lock held.
  Topic* find(std::string_view name);
  Topic& create(std::string_view name);
  void remove_if_idle(Topic& topic);
  [[nodiscard]] bool held(const Topic& topic, std::size_t footprint) const;
  void append(Topic& topic, const MessagePtr& message);
  void evict(Topic& topic);
  Call call_subscribers(Topic& topic);
  static Call call_publishers(Topic& topic);
  [[nodiscard]] static TopicInfo info(const Topic& topic);

  // Without the lock.
  void ring(const Call& call);
  News fetch(Topic& topic, std::list<Entry>::iterator entry, const Room& room);
  void hold(Topic& topic, std::list<Entry>::iterator entry, bool on);
  void unsubscribe(Topic& topic, std::list<Entry>::iterator entry);
  void leave(Topic& topic, std::list<Turn::Place>::iterator place);
  [[nodiscard]] bool good_name(std::string_view name) const;

  Poster& poster_;
  const HubLimits limits_;
  const std::uint32_t epoch_;

  mutable std::mutex lock_;  // guards the rest
  std::map<std::string, std::unique_ptr<Topic>, std::less<>> topics_;
  Topic all_;                                // "*"
  std::map<std::uint64_t, Topic*> crowded_;  // by oldest message: rings with more than one
  std::size_t history_ = 0;                  // footprints of all rings but that of "*"
  std::size_t retained_ = 0;                 // footprints of the newest messages among them
  std::uint64_t last_ = 0;                   // number of the last message
  TopicId last_topic_ = 0;
  Totals totals_;
};

}  // namespace echolab::patterns
