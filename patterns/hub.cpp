#include "patterns/hub.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "patterns/frames.hpp"
#include "patterns/utf8.hpp"

namespace echolab::patterns {

// ---- what sessions hold -----------------------------------------------------------------------

Hub::Subscription::Subscription(Subscription&& other) noexcept
    : hub_(std::exchange(other.hub_, nullptr)), topic_(other.topic_), entry_(other.entry_) {
}

Hub::Subscription& Hub::Subscription::operator=(Subscription&& other) noexcept {
  std::swap(hub_, other.hub_);
  std::swap(topic_, other.topic_);
  std::swap(entry_, other.entry_);
  return *this;
}

Hub::Subscription::~Subscription() {
  if (hub_ != nullptr) hub_->unsubscribe(*topic_, entry_);
}

Hub::TopicId Hub::Subscription::topic() const {
  return topic_->id;
}

// Written by this subscription's own calls only, so that reading it needs no lock.
std::uint64_t Hub::Subscription::cursor() const {
  return entry_->seen;
}

Hub::News Hub::Subscription::fetch(const Room& room) {
  return hub_->fetch(*topic_, entry_, room);
}

void Hub::Subscription::hold(bool on) {
  hub_->hold(*topic_, entry_, on);
}

Hub::Turn::Turn(Turn&& other) noexcept
    : hub_(std::exchange(other.hub_, nullptr)), topic_(other.topic_), place_(other.place_) {
}

Hub::Turn& Hub::Turn::operator=(Turn&& other) noexcept {
  std::swap(hub_, other.hub_);
  std::swap(topic_, other.topic_);
  std::swap(place_, other.place_);
  return *this;
}

Hub::Turn::~Turn() {
  if (hub_ != nullptr) hub_->leave(*topic_, place_);
}

// ---- topics -----------------------------------------------------------------------------------

Hub::Hub(Poster& poster, const HubLimits& limits, std::uint32_t epoch)
    : poster_(poster), limits_(limits), epoch_(epoch) {
  all_.id = ++last_topic_;
  all_.name = kAllTopics;
}

bool Hub::good_name(std::string_view name) const {
  return !name.empty() && name.size() <= limits_.topic_name &&
         std::all_of(name.begin(), name.end(),
                     [](char c) { return c >= ' ' && c <= '~' && c != '/'; });
}

Hub::Topic* Hub::find(std::string_view name) {
  if (name == kAllTopics) return &all_;
  const auto found = topics_.find(name);
  return found == topics_.end() ? nullptr : found->second.get();
}

Hub::Topic& Hub::create(std::string_view name) {
  auto topic = std::make_unique<Topic>();
  topic->id = ++last_topic_;
  topic->name = name;
  return *topics_.emplace(topic->name, std::move(topic)).first->second;
}

void Hub::remove_if_idle(Topic& topic) {
  if (&topic == &all_ || topic.subscribers() > 0) return;
  if (topic.ring.empty() && topic.line.empty()) topics_.erase(topics_.find(topic.name));
}

// ---- publish ----------------------------------------------------------------------------------

// Whether a publisher of so much has to wait: a subscriber says so, or one that must not lose
// anything has not fetched what would be evicted.
bool Hub::held(const Topic& topic, std::size_t footprint) const {
  if (topic.holds > 0) return true;
  if (topic.blockers == 0) return false;
  std::size_t bytes = topic.bytes + footprint;
  std::size_t count = topic.ring.size() + 1;
  std::uint64_t goes = 0;
  for (const MessagePtr& oldest : topic.ring) {
    if (count <= limits_.ring_messages && bytes <= limits_.ring_bytes) break;
    bytes -= oldest->footprint();
    --count;
    goes = oldest->number;
  }
  const auto loses = [&](const Entry& entry) { return entry.blocks && entry.seen < goes; };
  return goes > 0 && (std::any_of(topic.rung.begin(), topic.rung.end(), loses) ||
                      std::any_of(topic.quiet.begin(), topic.quiet.end(), loses));
}

void Hub::evict(Topic& topic) {
  const MessagePtr oldest = std::move(topic.ring.front());
  topic.ring.pop_front();
  topic.bytes -= oldest->footprint();
  topic.evicted = oldest->number;
  if (&topic == &all_) return;
  ++totals_.evicted;
  history_ -= oldest->footprint();
  crowded_.erase(oldest->number);
  if (topic.ring.size() > 1) crowded_.emplace(topic.ring.front()->number, &topic);
}

void Hub::append(Topic& topic, const MessagePtr& message) {
  topic.ring.push_back(message);
  topic.bytes += message->footprint();
  if (&topic != &all_) {
    const std::size_t before = topic.ring.size() - 1;
    if (before > 0) retained_ -= topic.ring[before - 1]->footprint();
    retained_ += message->footprint();
    history_ += message->footprint();
    if (before == 1) crowded_.emplace(topic.ring.front()->number, &topic);
  }
  while (topic.ring.size() > 1 &&
         (topic.ring.size() > limits_.ring_messages || topic.bytes > limits_.ring_bytes)) {
    evict(topic);
  }
  while (history_ > limits_.history_bytes && !crowded_.empty()) evict(*crowded_.begin()->second);
}

Hub::Call Hub::call_subscribers(Topic& topic) {
  Call call{topic.id, {}};
  call.who.reserve(topic.quiet.size());
  for (Entry& entry : topic.quiet) {
    entry.rung = true;
    call.who.push_back(entry.who);
  }
  topic.rung.splice(topic.rung.end(), topic.quiet);
  totals_.rings += call.who.size();
  return call;
}

// All that wait: each tries again, and those that come too late wait again.
Hub::Call Hub::call_publishers(Topic& topic) {
  Call call{topic.id, {}};
  if (topic.holds > 0) return call;
  for (Turn::Place& place : topic.line) {
    if (!std::exchange(place.called, true)) call.who.push_back(place.who);
  }
  return call;
}

void Hub::ring(const Call& call) {
  if (!call.who.empty()) poster_.post(call.who, Post{call.topic, nullptr});
}

Hub::Published Hub::publish(std::string_view name, std::string_view key, std::string_view data,
                            ConnId publisher, Turn& turn) {
  turn = {};
  if (!good_name(name) || name == kAllTopics) return {.refusal = Refusal::name};
  if (key.size() > limits_.key || !is_utf8(key)) return {.refusal = Refusal::key};
  if (data.size() > limits_.message) return {.refusal = Refusal::size};
  if (!is_utf8(data)) return {.refusal = Refusal::text};
  Published published;
  Call subscribers, all;
  {
    const std::scoped_lock lock(lock_);
    const std::size_t footprint = sizeof(Message) + name.size() + key.size() + data.size();
    Topic* topic = find(name);
    for (Topic* holder : {topic, &all_}) {
      if (holder == nullptr || !held(*holder, footprint)) continue;
      turn.hub_ = this;
      turn.topic_ = holder;
      turn.place_ = holder->line.insert(holder->line.end(), {publisher});
      ++totals_.held;
      published.held = true;
      return published;
    }
    if (topic == nullptr && topics_.size() >= limits_.topics) return {.refusal = Refusal::topics};
    const std::size_t replaced =
        topic == nullptr || topic->ring.empty() ? 0 : topic->ring.back()->footprint();
    if (retained_ - replaced + footprint > limits_.history_bytes) {
      return {.refusal = Refusal::history};
    }
    if (topic == nullptr) topic = &create(name);
    published.number = last_ + 1;
    const auto message = std::make_shared<const Message>(published.number, std::string(name),
                                                         std::string(key), std::string(data));
    last_ = published.number;
    ++totals_.published;
    append(*topic, message);
    append(all_, message);
    published.subscribers = topic->subscribers() + all_.subscribers();
    subscribers = call_subscribers(*topic);
    all = call_subscribers(all_);
  }
  ring(subscribers);
  ring(all);
  return published;
}

void Hub::leave(Topic& topic, std::list<Turn::Place>::iterator place) {
  const std::scoped_lock lock(lock_);
  topic.line.erase(place);
  remove_if_idle(topic);
}

// ---- subscribe --------------------------------------------------------------------------------

Hub::Refusal Hub::subscribe(std::string_view name, ConnId who, const Join& join,
                            Subscription& subscription) {
  subscription = {};
  if (!good_name(name)) return Refusal::name;
  const std::scoped_lock lock(lock_);
  if (totals_.subscriptions >= limits_.subscriptions) return Refusal::subscriptions;
  Topic* topic = find(name);
  if (topic == nullptr) {
    if (topics_.size() >= limits_.topics) return Refusal::topics;
    topic = &create(name);
  }
  Entry entry;
  entry.who = who;
  entry.joined = last_;
  entry.blocks = join.blocks;
  switch (join.from.from) {
    case Cursor::From::latest:
      entry.seen = last_;
      if (join.retained && !topic->ring.empty()) entry.seen = topic->ring.back()->number - 1;
      break;
    case Cursor::From::earliest:
      entry.seen = topic->evicted;
      break;
    case Cursor::From::after:
      entry.seen = join.from.number;
      break;
    case Cursor::From::restarted:
      entry.restarted = true;
      break;
  }
  if (entry.blocks) ++topic->blockers;
  ++totals_.subscriptions;
  subscription.hub_ = this;
  subscription.topic_ = topic;
  subscription.entry_ = topic->rung.insert(topic->rung.end(), entry);
  return Refusal::none;
}

void Hub::unsubscribe(Topic& topic, std::list<Entry>::iterator entry) {
  Call publishers;
  {
    const std::scoped_lock lock(lock_);
    --totals_.subscriptions;
    if (entry->holds) --topic.holds;
    if (entry->blocks) --topic.blockers;
    (entry->rung ? topic.rung : topic.quiet).erase(entry);
    publishers = call_publishers(topic);
    remove_if_idle(topic);
  }
  ring(publishers);
}

Hub::News Hub::fetch(Topic& topic, std::list<Entry>::iterator entry, const Room& room) {
  News news;
  Call publishers;
  {
    const std::scoped_lock lock(lock_);
    if (std::exchange(entry->rung, false)) {
      topic.quiet.splice(topic.quiet.end(), topic.rung, entry);
    }
    if (std::exchange(entry->restarted, false)) {
      const std::uint64_t before = topic.ring.empty() ? last_ : topic.ring.front()->number - 1;
      news.gap = {0, before, "restarted"};
      entry->seen = before;
    } else if (entry->seen < topic.evicted) {
      news.gap = {entry->seen + 1, topic.evicted, "evicted"};
      entry->seen = topic.evicted;
    }
    auto next = std::upper_bound(
        topic.ring.begin(), topic.ring.end(), entry->seen,
        [](std::uint64_t seen, const MessagePtr& message) { return seen < message->number; });
    std::size_t bytes = 0;
    for (; next != topic.ring.end() && news.messages.size() < room.messages; ++next) {
      bytes += (*next)->size();
      if (bytes > room.bytes && !(room.one && news.messages.empty())) break;
      news.messages.push_back(*next);
      entry->seen = (*next)->number;
    }
    news.more = next != topic.ring.end();
    if (!news.more) entry->seen = last_;
    news.live = entry->seen >= entry->joined;
    if (entry->blocks) publishers = call_publishers(topic);
  }
  ring(publishers);
  return news;
}

void Hub::hold(Topic& topic, std::list<Entry>::iterator entry, bool on) {
  Call publishers;
  {
    const std::scoped_lock lock(lock_);
    if (std::exchange(entry->holds, on) == on) return;
    on ? ++topic.holds : --topic.holds;
    publishers = call_publishers(topic);
  }
  ring(publishers);
}

// ---- ids and frames ---------------------------------------------------------------------------

std::string Hub::id_of(std::uint64_t number) const {
  return fmt::format("{:08x}-{}", epoch_, number);
}

std::optional<Hub::Cursor> Hub::parse_cursor(std::string_view text) const {
  constexpr std::size_t kEpochDigits = 8;
  using From = Cursor::From;
  if (text == "latest") return Cursor{From::latest, 0};
  if (text == "earliest") return Cursor{From::earliest, 0};
  if (text.size() < kEpochDigits + 2 || text[kEpochDigits] != '-') return std::nullopt;
  std::uint32_t epoch = 0;
  std::uint64_t number = 0;
  const char* const dash = text.data() + kEpochDigits;
  const char* const end = text.data() + text.size();
  const auto hex = std::from_chars(text.data(), dash, epoch, 16);
  const auto decimal = std::from_chars(dash + 1, end, number);
  if (hex.ec != std::errc{} || hex.ptr != dash) return std::nullopt;
  if (decimal.ec != std::errc{} || decimal.ptr != end) return std::nullopt;
  if (epoch != epoch_) return Cursor{From::restarted, 0};
  const std::scoped_lock lock(lock_);
  if (number > last_) return std::nullopt;
  return Cursor{From::after, number};
}

Frame Hub::frame(const MessagePtr& message, Transport transport) const {
  const auto index = static_cast<std::size_t>(transport);
  std::call_once(message->made_[index], [&] {
    message->frames_[index] = make_frame(id_of(message->number), *message, transport);
  });
  return message->frames_[index];
}

// ---- what there is ----------------------------------------------------------------------------

Hub::TopicInfo Hub::info(const Topic& topic) {
  TopicInfo info{topic.name, topic.subscribers(), 0, 0, nullptr};
  if (topic.ring.empty()) return info;
  info.first = topic.ring.front()->number;
  info.last = topic.ring.back()->number;
  info.retained = topic.ring.back();
  return info;
}

std::optional<Hub::TopicInfo> Hub::topic(std::string_view name) const {
  const std::scoped_lock lock(lock_);
  if (name == kAllTopics) return info(all_);
  const auto found = topics_.find(name);
  if (found == topics_.end()) return std::nullopt;
  return info(*found->second);
}

std::vector<Hub::TopicInfo> Hub::topics(std::size_t most) const {
  const std::scoped_lock lock(lock_);
  std::vector<TopicInfo> list;
  for (const auto& [name, topic] : topics_) {
    if (list.size() == most) break;
    list.push_back(info(*topic));
  }
  return list;
}

Hub::Totals Hub::totals() const {
  const std::scoped_lock lock(lock_);
  Totals totals = totals_;
  totals.topics = topics_.size();
  totals.history_bytes = history_;
  return totals;
}

}  // namespace echolab::patterns
