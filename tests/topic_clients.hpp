// Clients of topics for the delivery oracle, one actor each: publishers by POST, subscribers by
// event stream and by long poll, which are slow, and lose their connections, at random. Those that
// speak WebSocket are in topic_ws_clients.hpp.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "patterns/consumer.hpp"
#include "tests/http_reader.hpp"
#include "tests/world.hpp"

namespace echolab::test {

// What has been published: the truth that subscribers are held against.
class Ledger {
 public:
  using Numbers = std::map<std::uint64_t, std::string>;  // payload by number

  // Acknowledged.
  void add(const std::string& topic, std::uint64_t number, const std::string& payload);
  // Sent, and the connection lost before the answer: it may have been published, and is published
  // again. No two messages have the same payload.
  void doubt(const std::string& topic, const std::string& payload);
  // A subscriber was given it: if it was in doubt, it has been published, and others are to have
  // it too. When all subscribers are done.
  void found(std::uint64_t number, const std::string& payload);
  void publisher_done() { --publishing; }
  // Of a topic, or of all ("*").
  [[nodiscard]] Numbers of(const std::string& topic) const;
  // The last number acknowledged on a topic when nothing more will be published on it. What was in
  // doubt can come behind it, when a lost connection's last bytes are read late.
  [[nodiscard]] std::optional<std::uint64_t> end_of(const std::string& topic) const;

  std::atomic<int> publishing = 0;

 private:
  mutable std::mutex mutex_;
  std::map<std::string, Numbers> topics_;
  std::map<std::string, std::uint64_t> ends_;    // the last number acknowledged, by topic
  std::map<std::string, std::string> doubtful_;  // topic by payload
};

// "EPOCH-N" -> N. Throws std::runtime_error.
std::uint64_t number_of(const std::string& id);

class TopicActor {
 public:
  TopicActor(World& world, std::uint64_t seed) : world_(world), random_(seed) {}
  TopicActor(const TopicActor&) = delete;
  TopicActor& operator=(const TopicActor&) = delete;
  virtual ~TopicActor() = default;

  // One step; false when it is done, or when `wrong` says what went wrong. Does not throw.
  bool step() noexcept;
  std::string wrong;

 protected:
  virtual bool act() = 0;
  void connect(PeerOptions options = {});
  void disconnect();  // in one of the ways in which connections end
  void send(const std::string& text);
  // What has come within a moment. The connection may have ended then.
  std::string receive(std::size_t most);
  [[nodiscard]] bool one_in(std::uint64_t n) { return random_() % n == 0; }
  [[nodiscard]] std::uint64_t below(std::uint64_t n) { return random_() % n; }
  void progress() { progress_ = world_.now(); }

  World& world_;
  std::unique_ptr<Peer> peer_;

 private:
  std::mt19937_64 random_;
  Time progress_ = kNever;  // when it last got on
};

// Publishes so many messages, each until it is acknowledged.
class TopicPublisher : public TopicActor {
 public:
  TopicPublisher(World& world, std::uint64_t seed, Ledger& ledger, std::string name,
                 std::vector<std::string> topics, std::size_t messages);

 protected:
  struct Publication {
    std::string topic, key, payload;  // key: may be empty
  };
  Publication next();
  [[nodiscard]] bool has_next() const { return made_ < messages_; }
  void acknowledged(const Publication& publication, const std::string& id);
  [[nodiscard]] bool done() const { return acknowledged_ == messages_; }
  Ledger& ledger() { return ledger_; }

 private:
  Ledger& ledger_;
  const std::string name_;
  const std::vector<std::string> topics_;
  const std::size_t messages_;
  std::size_t made_ = 0;
  std::size_t acknowledged_ = 0;
};

class PostPublisher final : public TopicPublisher {
 public:
  using TopicPublisher::TopicPublisher;

 private:
  bool act() override;

  std::optional<Publication> publication_;  // until it is acknowledged
  ResponseReader response_;
  bool waiting_ = false;  // for its answer
};

// A subscriber's account: each number of its topic ends as one of these.
struct Account {
  std::size_t delivered = 0, duplicates = 0, declared = 0, lost = 0;
};

class TopicSubscriber : public TopicActor {
 public:
  TopicSubscriber(World& world, std::uint64_t seed, const Ledger& ledger, std::string topic)
      : TopicActor(world, seed), topic_(std::move(topic)), ledger_(ledger) {}

  // When all are done: first report() by each, so that what one was given is asked of the others,
  // then account(). What was delivered wrongly goes to `wrong`.
  void report(Ledger& ledger) const;
  Account account();
  [[nodiscard]] const std::string& topic() const { return topic_; }
  [[nodiscard]] std::size_t resumes() const { return resumes_; }

 protected:
  void message(const std::string& id, const std::string& payload);
  void gap(const std::string& first, const std::string& last);
  void seen(std::uint64_t number) { seen_ = std::max(seen_, number); }
  [[nodiscard]] bool done() const;
  // Now and then, and if it was cut off: then true, and the next step is to take up again. Seldom
  // while nothing comes: who leaves again and again before a busy server answers never hears it.
  bool leave(bool heard);

  const std::string topic_;
  std::size_t resumes_ = 0;

 private:
  const Ledger& ledger_;
  std::uint64_t seen_ = 0;
  std::vector<std::pair<std::uint64_t, std::string>> messages_;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> gaps_;
};

class StreamSubscriber final : public TopicSubscriber {
 public:
  StreamSubscriber(World& world, std::uint64_t seed, const Ledger& ledger, std::string topic,
                   patterns::Policy policy, std::string start)
      : TopicSubscriber(world, seed, ledger, std::move(topic)),
        policy_(policy),
        last_event_id_(std::move(start)) {}

 private:
  bool act() override;

  const patterns::Policy policy_;
  std::string last_event_id_;
  std::size_t pause_ = 0;  // steps in which it does not read
  ResponseReader response_;
  EventReader events_;
};

class PollSubscriber final : public TopicSubscriber {
 public:
  PollSubscriber(World& world, std::uint64_t seed, const Ledger& ledger, std::string topic,
                 std::string start)
      : TopicSubscriber(world, seed, ledger, std::move(topic)), cursor_(std::move(start)) {}

 private:
  bool act() override;
  void take_answer();

  std::string cursor_;
  bool waiting_ = false;
  ResponseReader response_;
};

}  // namespace echolab::test
