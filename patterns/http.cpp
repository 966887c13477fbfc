// The connection: which request is being read or answered, what is read ahead, and how long each
// may take. Parsing is request_parser's, bytes of answers are http_head's.
//
// Memory  While nothing is being read, a connection owns this object and no buffer: the parser goes
//         back when a request has been handed over, what a handler needs it has taken.
// Time    One deadline of the backend serves several of ours. It is only ever moved forward, and
//         looked at again when it comes: a busy connection sets it once in limits.idle, not with
//         each request.
#include "patterns/http.hpp"

#include <algorithm>
#include <exception>
#include <span>
#include <stdexcept>
#include <utility>

#include "patterns/http_head.hpp"
#include "patterns/request_parser.hpp"

namespace echolab::patterns {
namespace {

// Bytes that any socket's send buffer takes at once if nothing waits before them: whether a client
// takes its answer is watched only above this.
constexpr std::size_t kSurelyTaken = 16 * 1024;
// Bytes of answers that may wait before the next pipelined request is handled; about a backend's
// high-water mark, where it stops reading.
constexpr std::size_t kAnswersAhead = 256 * 1024;

std::span<char> text_of(Input input) {
  return {reinterpret_cast<char*>(input.data()), input.size()};
}

// What a session wants when it was given bytes that are not a backend's.
void copy_effects(Out& from, Out& to) {
  for (std::size_t i = 0; i < from.pieces(); ++i) {
    if (from.piece(i).kind == Out::Piece::Kind::shared) {
      to.share(from.piece(i).frame);
    } else {
      to.write(from.bytes(i));
    }
  }
  for (const Out::Call& c : from.calls()) {
    to.call(*c.upstream, c.id, c.request, c.reply_size, c.timeout);
  }
  if (from.deadline()) to.wake_at(*from.deadline());
  if (from.awaits_room()) to.await_room();
  if (from.aborting()) {
    to.abort();
  } else if (from.closing()) {
    to.close();
  }
}

class HttpSession final : public Session {
 public:
  explicit HttpSession(const HttpContext& context) : context_(context) {}

  void on_open(Out& out, ConnId id, Time now) override {
    id_ = id;
    idle_by_ = now + context_.limits.idle;
    settle(out, now);
  }
  void on_bytes(Out& out, Input input, Time now) override;
  void on_eof(Out& out, Time now) override;
  void on_post(Out& out, const Post& post, Time now) override;
  void on_reply(Out& out, const Reply& reply, Time now) override;
  void on_deadline(Out& out, Time now) override;
  void on_room(Out& out, Time now) override;
  void on_drain(Out& out, Time now) override;
  void on_close(std::error_code error) noexcept override {
    if (next_) return next_->on_close(error);
    pending_.reset();
  }

 private:
  class Turn;

  [[nodiscard]] const HttpLimits& limits() const { return context_.limits; }
  [[nodiscard]] bool reading() const { return parser_ && !parser_->empty(); }
  [[nodiscard]] bool handles() const { return !busy_ && !full_ && !ending_ && !next_; }

  std::span<char> serve(Out& out, std::span<char> bytes, Time now);
  void handle(Out& out, Time now);
  void hold(std::span<char> bytes);
  void go_on(Out& out, Time now);
  template <class Call>
  void ask_pending(Out& out, Time now, Call call);
  template <class Call>
  void guard(Turn& turn, Call call);
  void refuse(Out& out, const Refusal& refusal, bool head_only, Time now);
  void answered(Time now);
  void end();
  void settle(Out& out, Time now);
  void arm(Out& out);
  bool watch_client(Out& out, Time now);
  enum class Held : bool { no, yes };
  void hand_over(Out& out, std::span<char> rest, Held held, Time now);

  const HttpContext& context_;
  ConnId id_;
  bool busy_ = false;                      // a request has been handed over and is not answered yet
  bool streaming_ = false;                 // its answer's head is sent
  bool chunked_ = false;                   // its answer's body is chunked
  bool head_only_ = false;                 // it is a HEAD
  bool http_1_0_ = false;                  // it is HTTP/1.0
  bool keep_alive_ = false;                // the connection goes on behind it
  bool full_ = false;                      // too much of earlier answers is waiting to be sent
  bool eof_ = false;                       // the client sends no more
  bool draining_ = false;                  // the server is stopping
  bool overrun_ = false;                   // more was pipelined than is held
  bool ending_ = false;                    // nothing more is read or answered
  bool closed_ = false;                    // the backend has been told so
  std::unique_ptr<RequestParser> parser_;  // of a request that has begun
  std::unique_ptr<Pending> pending_;
  std::unique_ptr<Session> next_;  // what the connection was upgraded to
  std::string ahead_;              // read ahead while busy or full
  std::size_t ahead_used_ = 0;     // bytes at its front that are done with
  Time armed_ = kNever;            // what the backend was told
  Time idle_by_ = kNever;
  Time read_by_ = kNever;
  Time write_by_ = kNever;     // then the client must have taken something
  Time pending_by_ = kNever;   // asked for by pending_
  std::uint64_t written_ = 0;  // bytes, ever
  std::uint64_t taken_ = 0;    // of these, by the kernel when write_by_ was set
};

// All that an idle connection costs: kept small, for there may be tens of thousands of them.
static_assert(sizeof(HttpSession) <= 256);

// ---- the handler's side -----------------------------------------------------------------------

class HttpSession::Turn final : public Answer {
 public:
  Turn(HttpSession& session, Out& out, Time now) : s_(session), out_(out), now_(now) {}

  void send(Response response) override {
    if (!s_.busy_ || s_.streaming_) return;
    HeadFacts facts = facts_now();
    if (has_body(response.status)) facts.length = response.body.size();
    write_head(out_, response, facts);
    if (has_body(response.status) && !s_.head_only_) write_text(out_, response.body);
    s_.answered(now_);
  }
  void stream(Response head) override {
    if (!s_.busy_ || s_.streaming_) return;
    s_.chunked_ = !s_.http_1_0_;
    if (!s_.chunked_) s_.keep_alive_ = false;
    HeadFacts facts = facts_now();
    facts.chunked = s_.chunked_;
    write_head(out_, head, facts);
    s_.streaming_ = true;
    if (s_.head_only_) return s_.answered(now_);
    if (!head.body.empty()) piece(head.body);
  }
  void piece(std::string_view piece) override {
    if (!s_.streaming_ || piece.empty()) return;
    if (s_.chunked_) {
      write_chunk(out_, piece);
    } else {
      write_text(out_, piece);
    }
  }
  void share(const Frame& chunk) override {
    if (!s_.streaming_) return;
    if (s_.chunked_) return out_.share(chunk);
    // Without its size line and the CRLF behind it.
    constexpr std::byte kLineFeed{'\n'};
    const Bytes all(*chunk);
    const auto data = std::find(all.begin(), all.end(), kLineFeed) - all.begin() + 1;
    const auto start = static_cast<std::size_t>(data);
    out_.write(all.subspan(start, all.size() - start - 2));
  }
  void finish() override {
    if (!s_.streaming_) return;
    if (s_.chunked_) write_text(out_, "0\r\n\r\n");
    s_.answered(now_);
  }
  void upgrade(Response head, std::unique_ptr<Session> session) override {
    if (!s_.busy_ || s_.streaming_) return;
    write_upgrade_head(out_, head);
    s_.busy_ = false;
    s_.next_ = std::move(session);
  }
  void wait(std::unique_ptr<Pending> pending) override {
    if (s_.busy_) s_.pending_ = std::move(pending);
  }
  void wake_at(Time when) override {
    if (s_.busy_) s_.pending_by_ = when;
  }
  void call(const Upstream& upstream, CallId id, Bytes request, std::size_t reply_size,
            Duration timeout) override {
    if (s_.busy_) out_.call(upstream, id, request, reply_size, timeout);
  }
  void await_room() override { out_.await_room(); }
  void close() override {
    s_.keep_alive_ = false;
    s_.answered(now_);
  }
  void abort() override {
    out_.abort();
    s_.closed_ = true;
    s_.keep_alive_ = false;
    s_.answered(now_);
  }

  [[nodiscard]] ConnId id() const override { return s_.id_; }
  [[nodiscard]] Time now() const override { return now_; }
  [[nodiscard]] std::size_t queued() const override { return out_.queued() + out_.total(); }
  [[nodiscard]] bool streaming() const override { return s_.streaming_; }

 private:
  HeadFacts facts_now() {
    if (s_.draining_ || s_.overrun_) s_.keep_alive_ = false;
    HeadFacts facts;
    facts.now = s_.context_.clock.at(now_);
    if (!s_.keep_alive_) {
      facts.connection = "close";
    } else if (s_.http_1_0_) {
      facts.connection = "keep-alive";
    }
    return facts;
  }

  HttpSession& s_;
  Out& out_;
  Time now_;
};

// The answer is complete. A Pending that is being called goes when it returns.
void HttpSession::answered(Time now) {
  busy_ = streaming_ = false;
  pending_by_ = kNever;
  pending_.reset();
  idle_by_ = now + limits().idle;
  if (!keep_alive_ || draining_ || overrun_) end();
}

void HttpSession::end() {
  ending_ = true;
  busy_ = streaming_ = false;
  parser_.reset();
  pending_.reset();
  ahead_ = {};
}

template <class Call>
void HttpSession::guard(Turn& turn, Call call) {
  try {
    call();
  } catch (...) {
    // What went wrong is nothing to tell a client. An answer that has begun cannot be taken back.
    keep_alive_ = false;
    if (streaming_) {
      turn.abort();
    } else {
      turn.send(text(500, "the server failed on this request"));
    }
  }
}

// A Pending's callback. It may replace itself, and is gone before the next request is handled.
template <class Call>
void HttpSession::ask_pending(Out& out, Time now, Call call) {
  if (!pending_) return;
  std::unique_ptr<Pending> pending = std::move(pending_);
  Turn turn(*this, out, now);
  guard(turn, [&] { call(*pending, turn); });
  if (busy_ && !pending_) pending_ = std::move(pending);
  pending.reset();
  go_on(out, now);
}

// ---- reading ----------------------------------------------------------------------------------

void HttpSession::on_bytes(Out& out, Input input, Time now) {
  if (next_) return next_->on_bytes(out, input, now);
  if (ending_) return;
  const std::span<char> rest = serve(out, text_of(input), now);
  if (next_) return hand_over(out, rest, Held::no, now);
  hold(rest);
  settle(out, now);
}

// Reads and handles requests, in order, until one is not answered at once. Returns what is left.
std::span<char> HttpSession::serve(Out& out, std::span<char> bytes, Time now) {
  while (!bytes.empty() && handles()) {
    if (!parser_) parser_ = RequestParser::borrow(limits());
    RequestParser& parser = *parser_;
    const bool begun = !parser.empty();
    const bool in_body = parser.state() == RequestParser::State::body;
    bytes = bytes.subspan(parser.feed(bytes));
    if (!begun) read_by_ = now + limits().read;
    if (parser.state() == RequestParser::State::refused) {
      refuse(out, parser.refusal(), parser.rules().is_head(), now);
    } else if (parser.state() == RequestParser::State::complete) {
      handle(out, now);
      if (handles() && out.queued() + out.total() > kAnswersAhead) {
        full_ = true;
        out.await_room();
      }
    } else if (!in_body && parser.wants_continue()) {
      write_text(out, "HTTP/1.1 100 Continue\r\n\r\n");
    }
  }
  return bytes;
}

void HttpSession::handle(Out& out, Time now) {
  std::unique_ptr<RequestParser> parser = std::move(parser_);
  busy_ = true;
  head_only_ = parser->rules().is_head();
  http_1_0_ = parser->rules().http_1_0();
  keep_alive_ = parser->keep_alive();
  Turn turn(*this, out, now);
  guard(turn, [&] {
    context_.handler.handle(parser->request(), turn);
    if (busy_ && !pending_ && streaming_) turn.finish();
    if (busy_ && !pending_) throw std::logic_error("a request without an answer");
  });
  RequestParser::give_back(std::move(parser));
}

void HttpSession::refuse(Out& out, const Refusal& refusal, bool head_only, Time now) {
  busy_ = true;
  head_only_ = head_only;
  keep_alive_ = false;
  Turn(*this, out, now).send(text(refusal.status, refusal.why));
}

// Bytes that came while a request is being answered.
void HttpSession::hold(std::span<char> bytes) {
  if (bytes.empty() || ending_ || overrun_) return;
  if (ahead_used_ > ahead_.size() / 2) {
    ahead_.erase(0, ahead_used_);
    ahead_used_ = 0;
  }
  if (ahead_.size() - ahead_used_ + bytes.size() > limits().pipelined) {
    overrun_ = true;
    ahead_ = {};
    ahead_used_ = 0;
    if (!busy_) end();
  } else {
    ahead_.append(bytes.data(), bytes.size());
  }
}

// An answer is complete, or there is room again: what was read ahead is next.
void HttpSession::go_on(Out& out, Time now) {
  std::string ahead = std::exchange(ahead_, {});
  const std::size_t used = std::exchange(ahead_used_, 0);
  const std::span<char> rest = serve(out, std::span(ahead).subspan(used), now);
  if (next_) return hand_over(out, rest, Held::yes, now);
  if (!rest.empty() && !ending_) {
    ahead_used_ = ahead.size() - rest.size();
    ahead_ = std::move(ahead);
  }
  settle(out, now);
}

// The connection is the new session's from here on, beginning with what came behind the request:
// bytes of this callback's input, or held ones.
void HttpSession::hand_over(Out& out, std::span<char> rest, Held held, Time now) {
  if (armed_ != kNever) out.wake_at(kNever);
  next_->on_open(out, id_, now);
  if (!rest.empty() && !out.closing()) {
    if (held == Held::no) {
      next_->on_bytes(out, std::as_writable_bytes(rest), now);
    } else {
      // They lie in no backend's buffer, and cannot be forwarded.
      Out effects;
      effects.set_queued(out.queued() + out.total());
      next_->on_bytes(effects, std::as_writable_bytes(rest), now);
      copy_effects(effects, out);
    }
  }
  if (eof_ && !out.closing()) next_->on_eof(out, now);
  if (draining_ && !out.closing()) next_->on_drain(out, now);
}

void HttpSession::on_eof(Out& out, Time now) {
  if (next_) return next_->on_eof(out, now);
  eof_ = true;
  if (pending_) return ask_pending(out, now, [](Pending& p, Answer& a) { p.on_eof(a); });
  settle(out, now);
}

// ---- other callbacks --------------------------------------------------------------------------

void HttpSession::on_post(Out& out, const Post& post, Time now) {
  if (next_) return next_->on_post(out, post, now);
  ask_pending(out, now, [&](Pending& p, Answer& a) { p.on_post(a, post); });
}

void HttpSession::on_reply(Out& out, const Reply& reply, Time now) {
  if (next_) return next_->on_reply(out, reply, now);
  ask_pending(out, now, [&](Pending& p, Answer& a) { p.on_reply(a, reply); });
}

void HttpSession::on_room(Out& out, Time now) {
  if (next_) return next_->on_room(out, now);
  if (ending_) {
    if (!std::exchange(closed_, true)) out.close();
    return;
  }
  full_ = false;
  if (pending_) return ask_pending(out, now, [](Pending& p, Answer& a) { p.on_room(a); });
  go_on(out, now);
}

void HttpSession::on_drain(Out& out, Time now) {
  if (next_) return next_->on_drain(out, now);
  draining_ = true;
  if (pending_) return ask_pending(out, now, [](Pending& p, Answer& a) { p.on_drain(a); });
  settle(out, now);
}

void HttpSession::on_deadline(Out& out, Time now) {
  if (next_) return next_->on_deadline(out, now);
  armed_ = kNever;
  if (!watch_client(out, now)) return;
  if (pending_ && pending_by_ <= now) {
    pending_by_ = kNever;
    return ask_pending(out, now, [](Pending& p, Answer& a) { p.on_deadline(a); });
  }
  if (handles()) {
    if (reading()) {
      if (read_by_ <= now) {
        const bool head_only = parser_->rules().is_head();
        refuse(out, {408, "the request did not come in time"}, head_only, now);
      }
    } else if (idle_by_ <= now) {
      // Who still takes the last answer is not idle; whether he does is watched.
      if (out.queued() == 0) {
        end();
      } else {
        idle_by_ = now + limits().idle;
      }
    }
  }
  settle(out, now);
}

// ---- time -------------------------------------------------------------------------------------

// Whether the client has taken something of what was written before write_by_. False: it has not,
// and is cut off.
bool HttpSession::watch_client(Out& out, Time now) {
  if (now < write_by_) return true;
  write_by_ = kNever;
  if (out.queued() == 0) return true;
  const std::uint64_t taken = written_ - out.queued();
  if (taken == taken_) {
    out.abort();
    closed_ = true;
    end();
    return false;
  }
  taken_ = taken;
  write_by_ = now + limits().write;
  return true;
}

// What each callback leaves behind: the end, or the time until something must have happened.
void HttpSession::settle(Out& out, Time now) {
  if (handles() && eof_ && reading()) {
    refuse(out, {400, "the request ends in the middle"}, parser_->rules().is_head(), now);
  }
  if (handles() && (eof_ || draining_) && !reading()) end();
  if (closed_) return;
  const std::uint64_t before = written_;
  written_ += out.total();
  const bool all_taken = out.queued() == 0 && out.total() <= kSurelyTaken;
  if (!all_taken && write_by_ == kNever) {
    write_by_ = now + limits().write;
    taken_ = before - std::min<std::uint64_t>(before, out.queued());
  }
  if (ending_) {
    if (all_taken) {
      closed_ = true;
      return out.close();
    }
    // Behind a close() nobody would be asked whether the client still takes anything.
    out.await_room();
  }
  arm(out);
}

void HttpSession::arm(Out& out) {
  Time next = std::min(write_by_, pending_by_);
  if (handles()) next = std::min(next, reading() ? read_by_ : idle_by_);
  if (next >= armed_) return;
  armed_ = next;
  out.wake_at(next);
}

}  // namespace

std::unique_ptr<Session> make_http_session(const HttpContext& context) {
  return std::make_unique<HttpSession>(context);
}

}  // namespace echolab::patterns
