#include "patterns/consumer.hpp"

#include <algorithm>
#include <utility>

namespace echolab::patterns {
namespace {

constexpr std::array<const char*, kPolicies> kPolicyNames = {
    "drop-oldest", "drop-newest", "conflate", "disconnect", "block-publisher"};

// Behind a burst no more than this is kept for the next one; items.
constexpr std::size_t kKeep = 4;

// What is lost without ids outweighs what is lost with them, and the hub's loss the queue's.
int weight(std::string_view reason) {
  if (reason == "restarted") return 2;
  return reason == "evicted" ? 1 : 0;
}

// Two gaps with nothing between them.
Gap join(const std::optional<Gap>& before, const Gap& after) {
  if (!before) return after;
  return {before->first, after.last,
          weight(before->reason) >= weight(after.reason) ? before->reason : after.reason};
}

}  // namespace

const char* name_of(Policy policy) {
  return kPolicyNames[static_cast<std::size_t>(policy)];
}

std::optional<Policy> parse_policy(std::string_view name) {
  const auto* found = std::find(kPolicyNames.begin(), kPolicyNames.end(), name);
  if (found == kPolicyNames.end()) return std::nullopt;
  return static_cast<Policy>(found - kPolicyNames.begin());
}

Consumer::Consumer(Policy policy, const ConsumerLimits& limits, ConsumerTotals& totals)
    : policy_(policy), limits_(limits), totals_(totals) {
}

Consumer::~Consumer() {
  messages_ = bytes_ = 0;
  report();
}

bool Consumer::fits(const Message& message) const {
  return messages_ == 0 ||
         (messages_ < limits_.messages && bytes_ + message.size() <= limits_.bytes);
}

Hub::Room Consumer::room() const {
  // One fits into an empty queue whatever the limits are, or nothing would ever be fetched.
  const std::size_t most = std::max<std::size_t>(limits_.messages, 1);
  return {messages_ < most ? most - messages_ : 0,
          bytes_ < limits_.bytes ? limits_.bytes - bytes_ : 0, messages_ == 0};
}

void Consumer::drop(std::size_t at) {
  Item& item = items_[at];
  std::optional<Gap>& behind = at + 1 < items_.size() ? items_[at + 1].gap : tail_;
  Gap gap = join(item.gap, {item.message->number, item.message->number, name_of(policy_)});
  if (behind) gap = join(gap, *behind);
  behind = gap;
  --messages_;
  bytes_ -= item.message->size();
  if (at == head_) {
    item = {};
    ++head_;
  } else {
    items_.erase(items_.begin() + static_cast<std::ptrdiff_t>(at));
  }
}

void Consumer::conflate(const Message& newer) {
  if (newer.key.empty()) return;
  for (std::size_t i = head_; i < items_.size(); ++i) {
    const Message& waiting = *items_[i].message;
    if (waiting.key != newer.key || waiting.topic != newer.topic) continue;
    drop(i);
    ++totals_.conflated;
    return;  // there is never a second one
  }
}

void Consumer::push(MessagePtr message, Time now) {
  if (overrun_) return;
  if (policy_ == Policy::conflate) conflate(*message);
  if (!fits(*message)) {
    stuck_since_ = std::min(stuck_since_, now);
    auto& dropped = totals_.dropped[static_cast<std::size_t>(policy_)];
    switch (policy_) {
      case Policy::drop_oldest:
      case Policy::conflate:
        while (!fits(*message)) {
          drop(head_);
          ++dropped;
        }
        break;
      case Policy::drop_newest:
        tail_ = join(tail_, {message->number, message->number, name_of(policy_)});
        ++dropped;
        return;
      case Policy::disconnect:
        overrun_ = true;
        return;
      case Policy::block_publisher:
        break;  // the caller fetches only what there is room() for
    }
  }
  ++messages_;
  bytes_ += message->size();
  if (head_ > kKeep && head_ * 2 > items_.size()) {  // more is used up than is waiting
    items_.erase(items_.begin(), items_.begin() + static_cast<std::ptrdiff_t>(head_));
    head_ = 0;
  }
  items_.push_back({std::exchange(tail_, std::nullopt), std::move(message)});
}

void Consumer::push(const Gap& gap) {
  if (!overrun_) tail_ = join(tail_, gap);
}

bool Consumer::pop(Item& item) {
  if (messages_ == 0) {
    if (!tail_) return false;
    item = {std::exchange(tail_, std::nullopt), nullptr};
    return true;
  }
  stuck_since_ = kNever;
  item = std::move(items_[head_++]);
  --messages_;
  bytes_ -= item.message->size();
  if (messages_ == 0) {
    head_ = 0;
    if (items_.capacity() > kKeep) {
      items_ = {};
    } else {
      items_.clear();
    }
  }
  return true;
}

bool Consumer::overrun(Time now) {
  overrun_ = overrun_ || now >= deadline();
  if (overrun_ && !std::exchange(counted_, true)) {
    ++totals_.disconnected[static_cast<std::size_t>(policy_)];
  }
  return overrun_;
}

Time Consumer::deadline() const {
  if (stuck_since_ == kNever || policy_ == Policy::block_publisher) return kNever;
  return stuck_since_ + limits_.deadline;
}

void Consumer::report() {
  if (messages_ == reported_messages_ && bytes_ == reported_bytes_) return;
  // Unsigned arithmetic is modular: a decrease is added just as well.
  totals_.queued_messages += std::uint64_t{messages_} - reported_messages_;
  totals_.queued_bytes += std::uint64_t{bytes_} - reported_bytes_;
  reported_messages_ = messages_;
  reported_bytes_ = bytes_;
}

}  // namespace echolab::patterns
