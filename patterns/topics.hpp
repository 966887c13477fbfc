// Topics over HTTP: publish, long poll, presence; and, in event_stream.cpp, server-sent events.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "patterns/consumer.hpp"
#include "patterns/http.hpp"
#include "patterns/hub.hpp"
#include "patterns/metrics.hpp"
#include "patterns/router.hpp"

namespace echolab::patterns {

// Each is an option of pattern-server.
struct TopicLimits {
  std::size_t waiters = 50'000;  // parked long polls and publishers; more: 503
  std::size_t streams = 50'000;  // event streams; more: 503
  // A long poll's max_wait, and what it may ask for at most.
  Duration wait = std::chrono::seconds(30);
  Duration longest_wait = std::chrono::minutes(5);
  std::size_t answer_bytes = 1024 * 1024;  // of messages in one long poll's answer
  std::size_t answer_messages = 1024;
  std::size_t listed = 1000;                 // topics in GET /topics
  Duration retry = std::chrono::seconds(2);  // what an event stream's client waits to reconnect
  Duration heartbeat = std::chrono::seconds(15);  // an event stream is never silent for longer
  ConsumerLimits consumer;
};

// One of a bounded number of places; given back when destroyed.
class Seat {
 public:
  Seat() = default;
  Seat(std::atomic<std::size_t>& taken, std::size_t limit);
  Seat(Seat&& other) noexcept : taken_(std::exchange(other.taken_, nullptr)) {}
  Seat& operator=(Seat&& other) noexcept {
    std::swap(taken_, other.taken_);
    return *this;
  }
  ~Seat() {
    if (taken_ != nullptr) --*taken_;
  }
  explicit operator bool() const { return taken_ != nullptr; }  // false: there was none

 private:
  std::atomic<std::size_t>* taken_ = nullptr;
};

class Topics {
 public:
  // The hub must outlive it, and it all connections.
  Topics(Hub& hub, const TopicLimits& limits);

  // POST /topics/{topic}; GET /topics, /topics/{topic}, and its /events and /info
  void add_routes(Router& router);
  void metrics(MetricsText& text) const;

  // For what waits on its behalf.
  [[nodiscard]] Hub& hub() const { return hub_; }
  [[nodiscard]] const TopicLimits& limits() const { return limits_; }
  [[nodiscard]] const Frame& heartbeat() const { return heartbeat_; }
  // Also for subscribers by other transports.
  [[nodiscard]] ConsumerTotals& consumers() { return consumers_; }

 private:
  void publish(const Request& request, const std::string& topic, Answer& answer);
  void poll(const Request& request, const std::string& topic, Answer& answer);
  void events(const Request& request, const std::string& topic, Answer& answer);
  void list(Answer& answer) const;
  void info(const std::string& topic, Answer& answer) const;

  Hub& hub_;
  const TopicLimits limits_;
  const Frame heartbeat_;
  ConsumerTotals consumers_;
  std::atomic<std::size_t> waiters_ = 0, streams_ = 0;
};

// What a publisher is told that has waited for long enough.
inline constexpr std::string_view kHeldUp = "a subscriber holds the topic up; not published";

// The answer to what the hub refuses; not for Refusal::none.
Response refused(Hub::Refusal refusal);
// 503 with Retry-After.
Response busy(std::string_view line);

}  // namespace echolab::patterns
