#include "patterns/push.hpp"

#include <algorithm>
#include <deque>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "patterns/feed.hpp"
#include "patterns/frames.hpp"
#include "patterns/topics.hpp"
#include "patterns/ws_handshake.hpp"

namespace echolab::patterns {
namespace {

using Json = nlohmann::ordered_json;  // what is said: in the order in which it is written
using Parsed = nlohmann::json;        // what is heard: an ordered one looks through all its members
                                      // for each that is added

// Objects and arrays within each other. A ref is written again by recursion, so that a deep one
// would be a way to the end of the stack.
constexpr int kDepth = 16;

class EchoHandler final : public WsHandler {
 public:
  explicit EchoHandler(Seat seat) : seat_(std::move(seat)) {}
  void on_message(WebSocket& ws, WsOpcode type, std::string_view payload) override {
    ws.send(type, payload);
  }

 private:
  Seat seat_;
};

const char* reason_of(Hub::Refusal refusal) {
  switch (refusal) {
    case Hub::Refusal::none:
      return "";
    case Hub::Refusal::name:
      return "bad topic name";
    case Hub::Refusal::key:
      return "bad key";
    case Hub::Refusal::text:
      return "data is not UTF-8";
    case Hub::Refusal::size:
      return "data too big";
    case Hub::Refusal::topics:
      return "too many topics";
    case Hub::Refusal::subscriptions:
      return "too many subscriptions";
    case Hub::Refusal::history:
      return "no room for one more message";
  }
  return "";
}

// A subscription as a client asks for it.
struct Wish {
  std::string topic;
  std::string cursor_text;
  Hub::Cursor cursor;
  Policy policy = Policy::drop_oldest;
  bool retained = false;

  // Empty: done; else what is wrong.
  std::string set_cursor(const Hub& hub, std::string text) {
    const auto parsed = hub.parse_cursor(text);
    if (!parsed) return "bad cursor";
    cursor = *parsed;
    cursor_text = std::move(text);
    return {};
  }
  std::string set_policy(std::string_view name) {
    const auto parsed = parse_policy(name);
    if (!parsed) return "unknown policy";
    policy = *parsed;
    return {};
  }
};

// Where one topic's messages go.
class WebSocketSink final : public Feed::Sink {
 public:
  WebSocketSink(WebSocket& ws, const Hub& hub, const std::string& topic)
      : ws_(ws), hub_(hub), topic_(topic) {}
  [[nodiscard]] std::size_t queued() const override { return ws_.queued(); }
  void message(const MessagePtr& message) override {
    ws_.share(
        hub_.frame(message, ws_.deflate() ? Transport::websocket_deflate : Transport::websocket));
  }
  void gap(const Gap& gap) override {
    Json json{{"op", "gap"}, {"topic", topic_}};
    json.update(Json::parse(json_of(hub_, gap)));
    ws_.send(WsOpcode::text, json.dump());
  }

 private:
  WebSocket& ws_;
  const Hub& hub_;
  const std::string& topic_;
};

class PushHandler final : public WsHandler {
 public:
  PushHandler(PushContext& context, Seat seat, std::optional<Wish> first)
      : context_(context), seat_(std::move(seat)), first_(std::move(first)) {}

  void on_open(WebSocket& ws) override {
    if (!first_) return;
    subscribe(ws, *first_, {});
    first_.reset();
    set_deadline(ws);
  }
  void on_message(WebSocket& ws, WsOpcode type, std::string_view payload) override {
    if (type != WsOpcode::text) return ws.close(WsCode::unsupported_data, "text messages only");
    bool too_deep = false;
    const Parsed message = Parsed::parse(
        payload,
        [&](int depth, Parsed::parse_event_t, Parsed&) {
          too_deep = too_deep || depth > kDepth;
          return depth <= kDepth;
        },
        /*allow_exceptions=*/false);
    if (too_deep || !message.is_object()) {
      return error(ws, too_deep ? "nested too deeply" : "not a JSON object", {});
    }
    perform(ws, message);
    set_deadline(ws);
  }
  void on_post(WebSocket& ws, const Post& post) override {
    publish_waiting(ws);
    const auto found = std::find_if(subscribed_.begin(), subscribed_.end(), [&](const auto& one) {
      return one.feed->topic() == post.topic;
    });
    if (found != subscribed_.end()) pump(ws, *found);
    set_deadline(ws);
  }
  void on_room(WebSocket& ws) override {
    for (Subscribed& one : subscribed_) pump(ws, one);
    set_deadline(ws);
  }
  void on_deadline(WebSocket& ws) override {
    give_up(ws);
    on_room(ws);
  }

 private:
  struct Subscribed {
    std::string topic;
    std::unique_ptr<Feed> feed;
  };
  struct Publication {
    std::string topic, key, data;
    std::string ref;  // JSON; empty: none
    Time by;          // it waits no longer
    [[nodiscard]] std::size_t size() const {
      return topic.size() + key.size() + data.size() + ref.size();
    }
  };

  // `ref`: JSON, or empty.
  static void reply(WebSocket& ws, const Json& json, const std::string& ref) {
    std::string text = json.dump();
    if (!ref.empty()) {
      text.pop_back();
      text.append(R"(,"ref":)").append(ref).append("}");
    }
    ws.send(WsOpcode::text, text);
  }
  static void error(WebSocket& ws, std::string_view reason, const std::string& ref) {
    reply(ws, {{"op", "error"}, {"reason", reason}}, ref);
  }

  void perform(WebSocket& ws, const Parsed& message) {
    std::string ref;
    if (const auto given = message.find("ref"); given != message.end() && !given->is_null()) {
      ref = given->dump();
    }
    // Null if there is none or it is not a string; both are told apart by has().
    const auto text = [&](const char* name) -> const std::string* {
      const auto found = message.find(name);
      return found == message.end() ? nullptr : found->get_ptr<const std::string*>();
    };
    for (const char* name : {"op", "topic", "cursor", "policy", "key", "data"}) {
      if (message.contains(name) && text(name) == nullptr) {
        return error(ws, std::string(name) + " must be a string", ref);
      }
    }
    const std::string* const op = text("op");
    const std::string* const topic = text("topic");
    if (op == nullptr || (*op != "subscribe" && *op != "unsubscribe" && *op != "publish")) {
      return error(ws, "op must be subscribe, unsubscribe or publish", ref);
    }
    if (topic == nullptr) return error(ws, "topic is missing", ref);
    if (*op == "subscribe") {
      Wish wish;
      wish.topic = *topic;
      std::string wrong;
      if (const auto* cursor = text("cursor")) wrong = wish.set_cursor(context_.hub, *cursor);
      if (const auto* policy = text("policy"); policy != nullptr && wrong.empty()) {
        wrong = wish.set_policy(*policy);
      }
      if (const auto found = message.find("retained"); found != message.end()) {
        if (!found->is_boolean()) wrong = "retained must be true or false";
        if (found->is_boolean()) wish.retained = found->get<bool>();
      }
      if (!wrong.empty()) return error(ws, wrong, ref);
      return subscribe(ws, wish, ref);
    }
    if (*op == "unsubscribe") return unsubscribe(ws, *topic, ref);
    const std::string* const data = text("data");
    if (data == nullptr) return error(ws, "data is missing", ref);
    const std::string* const key = text("key");
    publish(ws, {*topic, key == nullptr ? "" : *key, *data, std::move(ref),
                 ws.now() + context_.consumer.deadline});
  }

  // ---- subscriptions ----------------------------------------------------------------------------
  [[nodiscard]] auto find(const std::string& topic) {
    return std::find_if(subscribed_.begin(), subscribed_.end(),
                        [&](const Subscribed& one) { return one.topic == topic; });
  }
  void subscribe(WebSocket& ws, const Wish& wish, const std::string& ref) {
    if (find(wish.topic) != subscribed_.end()) return error(ws, "already subscribed", ref);
    if (subscribed_.size() >= context_.push.subscriptions) {
      return error(ws, "too many subscriptions on this connection", ref);
    }
    Hub& hub = context_.hub;
    Hub::Subscription subscription;
    const Hub::Refusal refusal = hub.subscribe(
        wish.topic, ws.id(), {wish.cursor, wish.retained, wish.policy == Policy::block_publisher},
        subscription);
    if (refusal != Hub::Refusal::none) return error(ws, reason_of(refusal), ref);
    // One from before a restart is kept until its gap is told.
    const bool restarted = wish.cursor.from == Hub::Cursor::From::restarted;
    const std::string cursor = restarted ? wish.cursor_text : hub.id_of(subscription.cursor());
    reply(ws,
          {{"op", "subscribed"},
           {"topic", wish.topic},
           {"policy", name_of(wish.policy)},
           {"cursor", cursor}},
          ref);
    auto feed = std::make_unique<Feed>(std::move(subscription), wish.policy, context_.consumer,
                                       context_.totals);
    pump(ws, subscribed_.emplace_back(Subscribed{wish.topic, std::move(feed)}));
  }
  void unsubscribe(WebSocket& ws, const std::string& topic, const std::string& ref) {
    const auto found = find(topic);
    if (found == subscribed_.end()) return error(ws, "not subscribed", ref);
    subscribed_.erase(found);
    reply(ws, {{"op", "unsubscribed"}, {"topic", topic}}, ref);
  }
  void pump(WebSocket& ws, Subscribed& one) {
    WebSocketSink sink(ws, context_.hub, one.topic);
    switch (one.feed->pump(sink, ws.now())) {
      case Feed::State::quiet:
        break;
      case Feed::State::waiting:
        ws.await_room();
        break;
      case Feed::State::overrun:
        // Behind all that it has not taken; cut off if it does not take that in time.
        ws.close(WsCode::try_again_later, "slow consumer");
        break;
    }
  }
  void set_deadline(WebSocket& ws) {
    Time next = kNever;
    for (const Subscribed& one : subscribed_) next = std::min(next, one.feed->deadline());
    if (!waiting_.empty()) next = std::min(next, waiting_.front().by);
    ws.wake_at(next);
  }

  // ---- publications -----------------------------------------------------------------------------
  void publish(WebSocket& ws, Publication publication) {
    if (waiting_.empty() && try_publish(ws, publication)) return;
    const std::size_t size = publication.size();
    if (waiting_.size() >= context_.push.waiting ||
        waiting_bytes_ + size > context_.push.waiting_bytes) {
      if (waiting_.empty()) turn_ = {};  // it was the first
      return error(ws, "too many publications are waiting", publication.ref);
    }
    waiting_bytes_ += size;
    waiting_.push_back(std::move(publication));
  }
  void publish_waiting(WebSocket& ws) {
    while (!waiting_.empty() && try_publish(ws, waiting_.front())) {
      waiting_bytes_ -= waiting_.front().size();
      waiting_.pop_front();
    }
    if (waiting_.empty()) waiting_ = {};
  }
  // What has waited too long is not published; what waited only for it may go on.
  void give_up(WebSocket& ws) {
    if (waiting_.empty() || waiting_.front().by > ws.now()) return;
    turn_ = {};
    while (!waiting_.empty() && waiting_.front().by <= ws.now()) {
      error(ws, kHeldUp, waiting_.front().ref);
      waiting_bytes_ -= waiting_.front().size();
      waiting_.pop_front();
    }
    publish_waiting(ws);
  }
  // False: it has to wait; the hub rings when it may be tried again.
  bool try_publish(WebSocket& ws, const Publication& publication) {
    const Hub::Published done =
        context_.hub.publish(publication.topic, publication.key, publication.data, ws.id(), turn_);
    if (done.held) return false;
    if (done.refusal != Hub::Refusal::none) {
      error(ws, reason_of(done.refusal), publication.ref);
    } else {
      reply(ws, {{"op", "published"}, {"id", context_.hub.id_of(done.number)}}, publication.ref);
    }
    return true;
  }

  PushContext& context_;
  Seat seat_;
  std::optional<Wish> first_;  // to subscribe to as soon as the connection is open
  std::vector<Subscribed> subscribed_;
  std::deque<Publication> waiting_;
  std::size_t waiting_bytes_ = 0;
  Hub::Turn turn_;  // of the first that waits
};

// Empty: there is nothing wrong with it.
std::string read_wish(const Request& request, const Hub& hub, std::optional<Wish>& wish) {
  std::string value;
  if (!request.parameter("topic", value)) return {};
  wish.emplace().topic = value;
  if (request.parameter("retained", value)) {
    if (value != "true" && value != "false") return "retained must be true or false";
    wish->retained = value == "true";
  }
  std::string wrong;
  if (request.parameter("cursor", value)) wrong = wish->set_cursor(hub, value);
  if (wrong.empty() && request.parameter("policy", value)) wrong = wish->set_policy(value);
  return wrong;
}

// The handshake, and what is spoken when it is done: made by `make`, from a seat.
template <typename Make>
void open(const Request& request, Answer& answer, PushContext& context, Make make) {
  WsHandshake handshake = ws_handshake(request, context.origins);
  if (!handshake.accepted()) return answer.send(std::move(handshake.response));
  Seat seat(context.connections, context.push.connections);
  if (!seat) return answer.send(busy("too many WebSockets"));
  answer.upgrade(std::move(handshake.response),
                 make_websocket(context.websocket, handshake.deflate, make(std::move(seat))));
}

}  // namespace

void add_push_routes(Router& router, PushContext& context) {
  router.add("GET", "/ws", "WebSocket: topics as JSON messages (?topic=T subscribes at once)",
             [&context](const Request& request, const Captures&, Answer& answer) {
               std::optional<Wish> wish;
               const std::string wrong = read_wish(request, context.hub, wish);
               if (!wrong.empty()) return answer.send(text(400, wrong));
               open(request, answer, context, [&](Seat seat) {
                 return std::make_unique<PushHandler>(context, std::move(seat), std::move(wish));
               });
             });
  router.add("GET", "/ws/echo", "WebSocket: every message comes back",
             [&context](const Request& request, const Captures&, Answer& answer) {
               open(request, answer, context,
                    [](Seat seat) { return std::make_unique<EchoHandler>(std::move(seat)); });
             });
}

void add_push_metrics(MetricsText& metrics, const PushContext& context) {
  metrics.add("echolab_websockets", MetricsText::Type::gauge, "Open WebSockets.",
              context.connections);
}

}  // namespace echolab::patterns
