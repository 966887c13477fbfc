#include "patterns/feed.hpp"

#include <limits>
#include <utility>

namespace echolab::patterns {
namespace {

// All of it: the policy makes it fit.
constexpr Hub::Room kEverything = {std::numeric_limits<std::size_t>::max(),
                                   std::numeric_limits<std::size_t>::max(), true};

}  // namespace

Feed::Feed(Hub::Subscription subscription, Policy policy, const ConsumerLimits& limits,
           ConsumerTotals& totals)
    : subscription_(std::move(subscription)), consumer_(policy, limits, totals), totals_(totals) {
}

void Feed::hand_out(Sink& sink) {
  Consumer::Item item;
  while (sink.queued() < kSendWindow && consumer_.pop(item)) {
    if (item.gap) sink.gap(*item.gap);
    if (item.message) sink.message(item.message);
  }
}

// True: there is more where that came from.
bool Feed::take(const Hub::Room& room, Time now) {
  Hub::News news = subscription_.fetch(room);
  if (news.gap) consumer_.push(*news.gap);
  for (MessagePtr& message : news.messages) consumer_.push(std::move(message), now);
  live_ = news.live;
  return news.more;
}

Feed::State Feed::pump(Sink& sink, Time now) {
  // Earlier callbacks' bytes are still waiting. A window that is only filled by this one says
  // nothing about the client: the kernel has not been asked yet.
  const bool behind = sink.queued() >= kSendWindow;
  const bool blocks = consumer_.policy() == Policy::block_publisher;
  bool more = true;
  hand_out(sink);
  while (more && consumer_.empty() && sink.queued() < kSendWindow) {
    more = take(consumer_.room(), now);
    hand_out(sink);
  }
  if (behind && live_) more = take(blocks ? consumer_.room() : kEverything, now);
  if (blocks) {
    // Full: something is published that there is no room for. Until all of it is handed out.
    const bool full = behind && live_ ? more : holding_ && !consumer_.empty();
    if (full != holding_) subscription_.hold(full);
    if (full && !holding_) ++totals_.blocked;
    holding_ = full;
  }
  consumer_.report();
  if (consumer_.overrun(now)) return State::overrun;
  return more || !consumer_.empty() ? State::waiting : State::quiet;
}

}  // namespace echolab::patterns
