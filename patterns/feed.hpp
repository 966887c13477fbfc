// One subscription's way to one client: fetches from the hub, keeps in the consumer what the
// connection cannot take yet, and hands out the rest. What SSE and WebSocket have in common.
//
// History from before the subscription waits in the hub's ring until there is room for it: only
// what is published while the client is behind meets the slow-consumer policy.
#pragma once

#include "patterns/consumer.hpp"
#include "patterns/hub.hpp"

namespace echolab::patterns {

// Bytes that a connection may have waiting to be sent before more stays in the queue, where the
// policy can still act on it. Above Limits::low_water, at which on_room comes.
inline constexpr std::size_t kSendWindow = 128 * 1024;

class Feed {
 public:
  // Where messages and gaps go, in order.
  class Sink {
   public:
    // Bytes waiting to be sent, with those written in this callback.
    [[nodiscard]] virtual std::size_t queued() const = 0;
    virtual void message(const MessagePtr& message) = 0;
    virtual void gap(const Gap& gap) = 0;

   protected:
    ~Sink() = default;
  };
  enum class State : std::uint8_t {
    quiet,    // all is handed out; the hub rings when there is more
    waiting,  // ask for on_room and call pump() then; also if the hub rings before
    overrun,  // the client is to be disconnected
  };

  Feed(Hub::Subscription subscription, Policy policy, const ConsumerLimits& limits,
       ConsumerTotals& totals);

  // When subscribed, at each ring, on_room and at deadline().
  State pump(Sink& sink, Time now);
  // pump() must be called then at the latest; kNever: no need.
  [[nodiscard]] Time deadline() const { return consumer_.deadline(); }
  [[nodiscard]] Hub::TopicId topic() const { return subscription_.topic(); }

 private:
  void hand_out(Sink& sink);
  bool take(const Hub::Room& room, Time now);

  Hub::Subscription subscription_;
  Consumer consumer_;
  bool live_ = false;     // what is fetched now was published after the subscription
  bool holding_ = false;  // the topic's publishers
  ConsumerTotals& totals_;
};

}  // namespace echolab::patterns
