#include "patterns/topics.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "patterns/frames.hpp"

namespace echolab::patterns {
namespace {

constexpr const char* kRetryAfter = "1";  // seconds, for what is refused for want of room

Response no_store(Response response) {
  response.fields.push_back({"Cache-Control", "no-store"});
  return response;
}

void answer_published(const Hub& hub, const Hub::Published& published, Answer& answer) {
  if (published.refusal != Hub::Refusal::none) return answer.send(refused(published.refusal));
  answer.send(json(200, fmt::format(R"({{"id":"{}","subscribers":{}}})",
                                    hub.id_of(published.number), published.subscribers)));
}

// A message that waits until its topic is no longer held up.
class HeldPublish final : public Pending {
 public:
  HeldPublish(Hub& hub, Seat seat, Hub::Turn turn, std::string topic, std::string key,
              std::string data)
      : hub_(hub),
        seat_(std::move(seat)),
        turn_(std::move(turn)),
        topic_(std::move(topic)),
        key_(std::move(key)),
        data_(std::move(data)) {}

  void on_post(Answer& answer, const Post&) override {
    const auto published = hub_.publish(topic_, key_, data_, answer.id(), turn_);
    if (!published.held) answer_published(hub_, published, answer);
  }
  void on_deadline(Answer& answer) override { answer.send(busy(kHeldUp)); }

 private:
  Hub& hub_;
  const Seat seat_;
  Hub::Turn turn_;
  const std::string topic_, key_, data_;
};

// A request for what comes behind a cursor: answered when enough is there or time is up.
class LongPoll final : public Pending {
 public:
  LongPoll(const Topics& topics, Hub::Subscription subscription, std::size_t min_bytes)
      : topics_(topics), subscription_(std::move(subscription)), min_bytes_(min_bytes) {}

  // True: it is time to answer.
  bool collect();
  void answer_with(Answer& answer) const;
  void take(Seat seat) { seat_ = std::move(seat); }

  void on_post(Answer& answer, const Post&) override {
    if (collect()) answer_with(answer);
  }
  void on_deadline(Answer& answer) override { answer_with(answer); }
  void on_eof(Answer& answer) override { answer_with(answer); }

 private:
  const Topics& topics_;
  Seat seat_;
  Hub::Subscription subscription_;
  const std::size_t min_bytes_;
  std::vector<MessagePtr> messages_;
  std::size_t bytes_ = 0;
  std::optional<Gap> gap_;  // before the messages
  std::uint64_t cursor_ = 0;
};

bool LongPoll::collect() {
  const TopicLimits& limits = topics_.limits();
  Hub::News news = subscription_.fetch(
      {limits.answer_messages - messages_.size(), limits.answer_bytes - bytes_, messages_.empty()});
  // An answer has its gap in front: one that came about while it was waiting is for the next.
  if (news.gap && !messages_.empty()) return true;
  if (news.gap) gap_ = news.gap;
  for (MessagePtr& message : news.messages) {
    bytes_ += message->size();
    messages_.push_back(std::move(message));
  }
  cursor_ = subscription_.cursor();
  return gap_ || bytes_ >= min_bytes_ || news.more;
}

void LongPoll::answer_with(Answer& answer) const {
  const Hub& hub = topics_.hub();
  const std::string cursor = hub.id_of(cursor_);
  if (messages_.empty() && !gap_) {
    Response nothing;
    nothing.status = 204;
    nothing.fields.push_back({"Cursor", cursor});
    return answer.send(no_store(std::move(nothing)));
  }
  std::string body = R"({"messages":[)";
  for (const MessagePtr& message : messages_) {
    if (message != messages_.front()) body += ',';
    const Frame frame = hub.frame(message, Transport::json);
    body.append(reinterpret_cast<const char*>(frame->data()), frame->size());
  }
  body += fmt::format(R"(],"gap":{},"cursor":"{}"}})", gap_ ? json_of(hub, *gap_) : "null", cursor);
  answer.send(no_store(json(200, std::move(body))));
}

// "250" and "250ms" are milliseconds, "10s" seconds; more than `most` is `most`. False: it is
// none of these.
bool parse_wait(std::string_view text, Duration most, Duration& duration) {
  const char* const end = text.data() + text.size();
  std::uint64_t count = 0;
  const auto [rest, error] = std::from_chars(text.data(), end, count);
  const std::string_view unit(rest, static_cast<std::size_t>(end - rest));
  if (error != std::errc{} || (!unit.empty() && unit != "ms" && unit != "s")) return false;
  const std::uint64_t per_unit = unit == "s" ? 1000 : 1;
  const auto most_ms = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(most).count());
  // Compared before it is multiplied, which could overflow.
  count = std::min(count, most_ms / per_unit + 1);
  duration = std::min<Duration>(std::chrono::milliseconds(count * per_unit), most);
  return true;
}

nlohmann::ordered_json presence(const Hub& hub, const Hub::TopicInfo& info) {
  nlohmann::ordered_json json;
  json["topic"] = info.name;
  json["subscribers"] = info.subscribers;
  json["first"] = nullptr;
  json["last"] = nullptr;
  if (info.last != 0) {
    json["first"] = hub.id_of(info.first);
    json["last"] = hub.id_of(info.last);
  }
  return json;
}

}  // namespace

Response refused(Hub::Refusal refusal) {
  using Refusal = Hub::Refusal;
  switch (refusal) {
    case Refusal::name:
      return text(400, "a topic's name is printable ASCII without '/', not too long, and not '*'");
    case Refusal::key:
      return text(400, "the key is too long or not UTF-8");
    case Refusal::text:
      return text(400, "the message is not UTF-8");
    case Refusal::size:
      return text(413, "the message is too long");
    case Refusal::topics:
      return text(429, "too many topics");
    case Refusal::subscriptions:
      return text(429, "too many subscriptions");
    case Refusal::history:
      return text(429, "no room for one more retained message");
    case Refusal::none:
      break;
  }
  return text(500, "refused");
}

Response busy(std::string_view line) {
  Response response = text(503, line);
  response.fields.push_back({"Retry-After", kRetryAfter});
  return response;
}

Seat::Seat(std::atomic<std::size_t>& taken, std::size_t limit) {
  if (taken.fetch_add(1) < limit) {
    taken_ = &taken;
  } else {
    --taken;
  }
}

Topics::Topics(Hub& hub, const TopicLimits& limits)
    : hub_(hub), limits_(limits), heartbeat_(as_chunk(":\n\n")) {
}

void Topics::add_routes(Router& router) {
  router.add("GET", "/topics", "topics and how many listen to each",
             [this](const Request&, const Captures&, Answer& answer) { list(answer); });
  router.add(
      "POST", "/topics/{topic}", "publish the body, UTF-8; ?key=K",
      [this](const Request& request, const Captures& captures, Answer& answer) {
        publish(request, captures[0], answer);
      },
      Router::Body::needed);
  router.add("GET", "/topics/{topic}",
             "long poll; ?cursor=ID|earliest|latest &min_bytes=N &max_wait=10s",
             [this](const Request& request, const Captures& captures, Answer& answer) {
               poll(request, captures[0], answer);
             });
  router.add("GET", "/topics/{topic}/events",
             "server-sent events; ?cursor=ID|earliest|latest &policy=drop-oldest &retained=true",
             [this](const Request& request, const Captures& captures, Answer& answer) {
               events(request, captures[0], answer);
             });
  router.add("GET", "/topics/{topic}/info", "presence, history and the last message",
             [this](const Request&, const Captures& captures, Answer& answer) {
               info(captures[0], answer);
             });
}

void Topics::publish(const Request& request, const std::string& topic, Answer& answer) {
  std::string key;
  request.parameter("key", key);
  Hub::Turn turn;
  const auto published = hub_.publish(topic, key, request.body, answer.id(), turn);
  if (!published.held) return answer_published(hub_, published, answer);
  Seat seat(waiters_, limits_.waiters);
  if (!seat) return answer.send(busy("too many requests are waiting; not published"));
  answer.wait(std::make_unique<HeldPublish>(hub_, std::move(seat), std::move(turn), topic,
                                            std::move(key), std::string(request.body)));
  answer.wake_at(answer.now() + limits_.consumer.deadline);
}

void Topics::poll(const Request& request, const std::string& topic, Answer& answer) {
  std::string value;
  Hub::Join join;
  if (request.parameter("cursor", value)) {
    const auto cursor = hub_.parse_cursor(value);
    if (!cursor) return answer.send(text(400, "cursor: not an id of this server's form"));
    join.from = *cursor;
  }
  std::size_t min_bytes = 1;
  if (request.parameter("min_bytes", value)) {
    const char* const end = value.data() + value.size();
    const auto [rest, error] = std::from_chars(value.data(), end, min_bytes);
    if (error != std::errc{} || rest != end) {
      return answer.send(text(400, "min_bytes: not a number"));
    }
  }
  Duration wait = limits_.wait;
  if (request.parameter("max_wait", value) && !parse_wait(value, limits_.longest_wait, wait)) {
    return answer.send(text(400, "max_wait: not a duration"));
  }
  Hub::Subscription subscription;
  const auto refusal = hub_.subscribe(topic, answer.id(), join, subscription);
  if (refusal != Hub::Refusal::none) return answer.send(refused(refusal));
  auto poll = std::make_unique<LongPoll>(*this, std::move(subscription),
                                         std::min(min_bytes, limits_.answer_bytes));
  if (poll->collect() || wait == Duration::zero()) return poll->answer_with(answer);
  Seat seat(waiters_, limits_.waiters);
  if (!seat) return answer.send(busy("too many requests are waiting"));
  poll->take(std::move(seat));
  answer.wait(std::move(poll));
  answer.wake_at(answer.now() + wait);
}

void Topics::list(Answer& answer) const {
  auto topics = hub_.topics(limits_.listed + 1);
  nlohmann::ordered_json body;
  body["topics"] = nlohmann::ordered_json::array();
  body["more"] = topics.size() > limits_.listed;  // than are listed
  topics.resize(std::min(topics.size(), limits_.listed));
  for (const Hub::TopicInfo& info : topics) body["topics"].push_back(presence(hub_, info));
  answer.send(no_store(json(200, body.dump())));
}

void Topics::info(const std::string& topic, Answer& answer) const {
  const auto info = hub_.topic(topic);
  if (!info) return answer.send(text(404, "no such topic"));
  nlohmann::ordered_json body = presence(hub_, *info);
  body["retained"] = nullptr;
  if (info->retained) {
    const Message& message = *info->retained;
    body["retained"] = nlohmann::ordered_json::parse(json_of(hub_.id_of(message.number), message));
  }
  answer.send(no_store(json(200, body.dump())));
}

void Topics::metrics(MetricsText& text) const {
  using Type = MetricsText::Type;
  const Hub::Totals totals = hub_.totals();
  text.add("echolab_topics", Type::gauge, "Topics.", totals.topics);
  text.add("echolab_subscriptions", Type::gauge, "Subscriptions, all transports.",
           totals.subscriptions);
  text.add("echolab_topic_history_bytes", Type::gauge, "Memory of the replay rings.",
           totals.history_bytes);
  text.add("echolab_published_total", Type::counter, "Messages published.", totals.published);
  text.add("echolab_evicted_total", Type::counter, "Messages that have left a replay ring.",
           totals.evicted);
  text.add("echolab_rings_total", Type::counter, "Doorbells rung.", totals.rings);
  text.add("echolab_topic_waiters", Type::gauge, "Parked long polls and publishers.", waiters_);
  text.add("echolab_event_streams", Type::gauge, "Open event streams.", streams_);
  text.add("echolab_queue_messages", Type::gauge, "Messages in slow subscribers' queues.",
           consumers_.queued_messages);
  text.add("echolab_queue_bytes", Type::gauge, "Bytes in slow subscribers' queues.",
           consumers_.queued_bytes);
  const auto per_policy = [&](std::string_view name, std::string_view help,
                              const ConsumerTotals::PerPolicy& values) {
    for (std::size_t i = 0; i < kPolicies; ++i) {
      text.add(name, Type::counter, help, values[i],
               fmt::format(R"(policy="{}")", name_of(static_cast<Policy>(i))));
    }
  };
  per_policy("echolab_dropped_total", "Messages dropped from slow subscribers' queues.",
             consumers_.dropped);
  per_policy("echolab_slow_disconnects_total", "Subscribers disconnected for being slow.",
             consumers_.disconnected);
  text.add("echolab_conflated_total", Type::counter, "Messages replaced by a newer of their key.",
           consumers_.conflated);
  text.add("echolab_holds_total", Type::counter, "Times that a subscriber held its topic up.",
           consumers_.blocked);
  text.add("echolab_held_publishes_total", Type::counter, "Attempts to publish that had to wait.",
           totals.held);
}

}  // namespace echolab::patterns
