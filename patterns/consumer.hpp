// What one subscriber still has to get, in order, and what happens when that becomes too much: the
// five slow-consumer policies. Pure: no I/O, no clock, no lock; it belongs to one session.
//
// Loss is declared: what comes out, messages and gaps, covers every message that went in.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "patterns/hub.hpp"

namespace echolab::patterns {

enum class Policy : std::uint8_t {
  drop_oldest,      // room is made at the front
  drop_newest,      // what does not fit does not get in
  conflate,         // a newer message replaces a waiting one of the same topic and key, wherever
                    // that stands; if there is still no room, drop_oldest
  disconnect,       // the first message that does not fit ends the subscription
  block_publisher,  // nothing is fetched that does not fit, and publishers of the topic wait
};
inline constexpr std::size_t kPolicies = 5;
const char* name_of(Policy);  // "drop-oldest", ...
std::optional<Policy> parse_policy(std::string_view);

struct ConsumerLimits {
  std::size_t messages = 256;  // at least one, whatever is said here
  // Message::size; one message fits however large it is. There is no bound on all queues together
  // but this one times HubLimits::subscriptions: what several queues hold is there once.
  std::size_t bytes = 256 * 1024;
  // A subscriber that is at its bound and takes nothing for so long is disconnected. With
  // block_publisher it is the publisher that waits no longer than that.
  Duration deadline = std::chrono::seconds(10);
};

// Shared by all consumers of a server.
struct ConsumerTotals {
  using PerPolicy = std::array<std::atomic<std::uint64_t>, kPolicies>;
  PerPolicy dropped{};                       // messages thrown away for want of room
  PerPolicy disconnected{};                  // subscribers
  std::atomic<std::uint64_t> conflated = 0;  // messages replaced by a newer one of their key
  std::atomic<std::uint64_t> blocked = 0;    // times that a subscriber held its topic up
  std::atomic<std::uint64_t> queued_messages = 0, queued_bytes = 0;  // now
};

class Consumer {
 public:
  struct Item {
    std::optional<Gap> gap;  // comes first
    MessagePtr message;      // null: the gap stands alone, at the end
  };

  // The limits and totals must outlive it.
  Consumer(Policy policy, const ConsumerLimits& limits, ConsumerTotals& totals);
  Consumer(const Consumer&) = delete;
  Consumer& operator=(const Consumer&) = delete;
  ~Consumer();

  // In the order of numbers. `now` starts the deadline when it does not fit.
  void push(MessagePtr message, Time now);
  // What is missing before the next message that is pushed.
  void push(const Gap& gap);
  // The next message with the gap before it, or the gap at the end. False: nothing is waiting.
  bool pop(Item& item);

  [[nodiscard]] bool empty() const { return messages_ == 0 && !tail_; }
  [[nodiscard]] std::size_t messages() const { return messages_; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }
  // What may still be pushed without the policy having to act.
  [[nodiscard]] Hub::Room room() const;
  [[nodiscard]] Policy policy() const { return policy_; }

  // Whether the subscriber is to be disconnected: by its policy, or because it is over the
  // deadline. Counted once.
  bool overrun(Time now);
  // When to ask again at the latest; kNever if it is not at its bound.
  [[nodiscard]] Time deadline() const;
  // Brings the shared gauges up to date. Not done at each push and pop, so that a subscriber that
  // keeps up touches no shared cache line.
  void report();

 private:
  [[nodiscard]] bool fits(const Message& message) const;
  void drop(std::size_t at);  // a waiting message; its number goes into the gap behind it
  void conflate(const Message& newer);

  const Policy policy_;
  bool overrun_ = false;
  bool counted_ = false;  // the overrun
  const ConsumerLimits& limits_;
  ConsumerTotals& totals_;
  std::vector<Item> items_;  // from head_ on; owns nothing while the subscriber keeps up
  std::size_t head_ = 0;
  std::optional<Gap> tail_;  // behind the last item
  std::size_t messages_ = 0, bytes_ = 0;
  std::size_t reported_messages_ = 0, reported_bytes_ = 0;
  Time stuck_since_ = kNever;  // did not fit, and nothing has been taken since
};

}  // namespace echolab::patterns
