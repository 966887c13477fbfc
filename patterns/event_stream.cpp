// Server-sent events (WHATWG HTML, 9.2): GET /topics/{}/events.

#include <fmt/format.h>

#include <algorithm>

#include "patterns/feed.hpp"
#include "patterns/frames.hpp"
#include "patterns/topics.hpp"

namespace echolab::patterns {
namespace {

class EventStream final : public Pending {
 public:
  EventStream(Topics& topics, Seat seat, Hub::Subscription subscription, Transport transport,
              Policy policy)
      : topics_(topics),
        seat_(std::move(seat)),
        feed_(std::move(subscription), policy, topics.limits().consumer, topics.consumers()),
        transport_(transport) {}

  void pump(Answer& answer);
  void on_post(Answer& answer, const Post&) override { pump(answer); }
  void on_room(Answer& answer) override { pump(answer); }
  void on_deadline(Answer& answer) override;
  void on_eof(Answer& answer) override { answer.finish(); }

 private:
  // What one callback hands out.
  struct Sink final : Feed::Sink {
    Sink(EventStream& to, Answer& by) : stream(to), answer(by) {}
    [[nodiscard]] std::size_t queued() const override { return answer.queued(); }
    void message(const MessagePtr& message) override {
      answer.share(stream.topics_.hub().frame(message, stream.transport_));
      stream.sent_ = answer.now();
    }
    void gap(const Gap& gap) override {
      const Hub& hub = stream.topics_.hub();
      answer.piece(sse_event(hub.id_of(gap.last), "gap", json_of(hub, gap)));
      stream.sent_ = answer.now();
    }
    EventStream& stream;
    Answer& answer;
  };

  Topics& topics_;
  const Seat seat_;
  Feed feed_;
  const Transport transport_;
  Time sent_{};          // when the client was last sent something
  Time armed_ = kNever;  // the deadline that is set
};

void EventStream::pump(Answer& answer) {
  if (sent_ == Time{}) sent_ = answer.now();
  Sink sink(*this, answer);
  const Feed::State state = feed_.pump(sink, answer.now());
  if (state == Feed::State::overrun) return answer.abort();
  if (state == Feed::State::waiting) answer.await_room();
  // A deadline that is set comes too early, not too late, when something has been sent since: it is
  // left alone, so that a message costs no timer.
  const Time due = std::min(sent_ + topics_.limits().heartbeat, feed_.deadline());
  if (due < armed_) answer.wake_at(armed_ = due);
}

void EventStream::on_deadline(Answer& answer) {
  armed_ = kNever;
  if (answer.now() >= sent_ + topics_.limits().heartbeat) {
    // A client that takes nothing needs no proof of life.
    if (answer.queued() < kSendWindow) answer.share(topics_.heartbeat());
    sent_ = answer.now();
  }
  pump(answer);
}

}  // namespace

void Topics::events(const Request& request, const std::string& topic, Answer& answer) {
  std::string value;
  Hub::Join join;
  const std::string_view last_event_id = request.field("Last-Event-ID");
  if (!last_event_id.empty()) {
    value = last_event_id;
  } else if (!request.parameter("last_event_id", value)) {
    request.parameter("cursor", value);
  }
  if (!value.empty()) {
    const auto cursor = hub_.parse_cursor(value);
    if (!cursor) return answer.send(text(400, "cursor: not an id of this server's form"));
    join.from = *cursor;
  }
  auto policy = std::optional(Policy::drop_oldest);
  if (request.parameter("policy", value)) policy = parse_policy(value);
  if (!policy) {
    return answer.send(text(400,
                            "policy: drop-oldest, drop-newest, conflate, disconnect or "
                            "block-publisher"));
  }
  join.blocks = *policy == Policy::block_publisher;
  if (request.parameter("retained", value)) {
    if (value != "true" && value != "false") {
      return answer.send(text(400, "retained: true or false"));
    }
    join.retained = value == "true";
  }
  Response head;
  head.fields = {{"Content-Type", "text/event-stream"}, {"Cache-Control", "no-store"}};
  Seat seat(streams_, limits_.streams);
  if (!seat) return answer.send(busy("too many event streams"));
  Hub::Subscription subscription;
  const auto refusal = hub_.subscribe(topic, answer.id(), join, subscription);
  if (refusal != Hub::Refusal::none) return answer.send(refused(refusal));
  answer.stream(std::move(head));
  if (request.method == "HEAD") return answer.finish();
  // An id without data makes no event, but from here on a client that loses the connection comes
  // back to where it began. A cursor from before a restart is kept until its gap is told.
  const auto retry = std::chrono::duration_cast<std::chrono::milliseconds>(limits_.retry);
  std::string start = fmt::format("retry: {}\n", retry.count());
  if (join.from.from != Hub::Cursor::From::restarted) {
    start += fmt::format("id: {}\n", hub_.id_of(subscription.cursor()));
  }
  answer.piece(start + "\n");
  auto stream = std::make_unique<EventStream>(
      *this, std::move(seat), std::move(subscription),
      topic == kAllTopics ? Transport::sse_all : Transport::sse, *policy);
  EventStream& waiting = *stream;
  answer.wait(std::move(stream));
  waiting.pump(answer);
}

}  // namespace echolab::patterns
