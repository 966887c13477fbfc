// Clients of topics for the delivery oracle, one actor each: publishers, and subscribers by event
// stream and by long poll, which are slow, and lose their connections, at random.
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

// What has been published and acknowledged: the truth that subscribers are held against.
class Ledger {
 public:
  using Numbers = std::map<std::uint64_t, std::string>;  // payload by number

  void add(const std::string& topic, std::uint64_t number, const std::string& payload);
  void publisher_done() { --publishing; }
  // Of a topic, or of all ("*").
  [[nodiscard]] Numbers of(const std::string& topic) const;
  // The last number of a topic when nothing more will be published on it.
  [[nodiscard]] std::optional<std::uint64_t> end_of(const std::string& topic) const;

  std::atomic<int> publishing = 0;

 private:
  mutable std::mutex mutex_;
  std::map<std::string, Numbers> topics_;
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

class TopicPublisher final : public TopicActor {
 public:
  TopicPublisher(World& world, std::uint64_t seed, Ledger& ledger, std::string name,
                 std::vector<std::string> topics, std::size_t messages);

 private:
  bool act() override;
  void next();

  Ledger& ledger_;
  const std::string name_;
  const std::vector<std::string> topics_;
  const std::size_t messages_;
  std::size_t published_ = 0;
  std::string topic_, payload_, request_;
  ResponseReader response_;
  bool waiting_ = false;
};

// A subscriber's account: each number of its topic ends as one of these.
struct Account {
  std::size_t delivered = 0, duplicates = 0, declared = 0, lost = 0;
};

class TopicSubscriber : public TopicActor {
 public:
  TopicSubscriber(World& world, std::uint64_t seed, const Ledger& ledger, std::string topic)
      : TopicActor(world, seed), topic_(std::move(topic)), ledger_(ledger) {}

  // When it is done. What was delivered wrongly goes to `wrong`.
  Account account();
  [[nodiscard]] const std::string& topic() const { return topic_; }
  [[nodiscard]] std::size_t resumes() const { return resumes_; }

 protected:
  void message(const std::string& id, const std::string& payload);
  void gap(const std::string& first, const std::string& last);
  void seen(std::uint64_t number) { seen_ = std::max(seen_, number); }
  [[nodiscard]] bool done() const;

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
