#include "patterns/app.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "patterns/sqlite_store.hpp"

namespace echolab::patterns {
namespace {

// A connection that counts as long as it lives.
class Counted final : public Session {
 public:
  Counted(std::unique_ptr<Session> session, std::atomic<std::size_t>& count)
      : session_(std::move(session)), count_(count) {}
  ~Counted() override {
    session_.reset();
    count_.fetch_sub(1, std::memory_order_relaxed);
  }

  void on_open(Out& out, ConnId id, Time now) override { session_->on_open(out, id, now); }
  void on_bytes(Out& out, Input in, Time now) override { session_->on_bytes(out, in, now); }
  void on_eof(Out& out, Time now) override { session_->on_eof(out, now); }
  void on_post(Out& out, const Post& post, Time now) override { session_->on_post(out, post, now); }
  void on_reply(Out& out, const Reply& reply, Time now) override {
    session_->on_reply(out, reply, now);
  }
  void on_deadline(Out& out, Time now) override { session_->on_deadline(out, now); }
  void on_room(Out& out, Time now) override { session_->on_room(out, now); }
  void on_drain(Out& out, Time now) override { session_->on_drain(out, now); }
  void on_close(std::error_code error) noexcept override { session_->on_close(error); }

 private:
  std::unique_ptr<Session> session_;
  std::atomic<std::size_t>& count_;
};

// One connection too many. It is told so at once, whatever it was going to ask.
class TurnedAway final : public Session {
 public:
  void on_open(Out& out, ConnId, Time) override {
    static constexpr std::string_view kAnswer =
        "HTTP/1.1 503 Service Unavailable\r\n"
        "Retry-After: 1\r\n"
        "Content-Type: text/plain\r\n"
        "Content-Length: 21\r\n"
        "Connection: close\r\n"
        "\r\n"
        "too many connections\n";
    out.write(std::as_bytes(std::span(kAnswer)));
    out.close();
  }
  void on_bytes(Out&, Input, Time) override {}
};

std::unique_ptr<SessionStore> make_sessions(const AppOptions& options, const RandomSource& random,
                                            const WallClock& clock, Poster& poster,
                                            Tickets& tickets) {
  const SessionLimits& limits = options.limits.sessions;
  switch (options.sessions) {
    case AppOptions::Sessions::token:
      return make_token_sessions(limits, random, options.token_key, clock);
    case AppOptions::Sessions::sqlite:
      return make_sqlite_sessions(limits, random, options.session_db, clock, poster, tickets);
    case AppOptions::Sessions::memory:
      break;
  }
  return make_memory_sessions(limits, random);
}

// New with each start, so that an id from before a restart is known for what it is.
std::uint32_t epoch(const RandomSource& random) {
  std::array<std::byte, sizeof(std::uint32_t)> bytes{};
  random(bytes);
  return std::bit_cast<std::uint32_t>(bytes);
}

}  // namespace

App::App(const AppOptions& options, Poster& poster, const WallClock& clock, RandomSource random,
         MetricsSource backend)
    : most_connections_(options.limits.connections),
      backend_(std::move(backend)),
      jobs_(poster, tickets_, random, options.limits.jobs),
      sessions_(make_sessions(options, random, clock, poster, tickets_)),
      gateway_(options.upstream, random, options.limits.gateway),
      hub_(poster, options.limits.hub, epoch(random)),
      topics_(hub_, options.limits.topics),
      push_{hub_,
            topics_.consumers(),
            options.origins,
            options.limits.websocket,
            options.limits.push,
            options.limits.topics.consumer},
      http_{router_, options.limits.http, clock} {
  add_plain_routes();
  add_work_routes(router_, options.limits.work);
  gateway_.add_routes(router_);
  jobs_.add_routes(router_);
  add_session_routes(router_, *sessions_);
  topics_.add_routes(router_);
  add_push_routes(router_, push_);
}

std::unique_ptr<Session> App::accept() {
  // Those who are turned away do not count, so that they keep nobody else out.
  if (connections_.fetch_add(1, std::memory_order_relaxed) >= most_connections_) {
    connections_.fetch_sub(1, std::memory_order_relaxed);
    turned_away_.fetch_add(1, std::memory_order_relaxed);
    return std::make_unique<TurnedAway>();
  }
  return std::make_unique<Counted>(make_http_session(http_), connections_);
}

void App::add_plain_routes() {
  router_.add("GET", "/", "this index",
              [this](const Request&, const Captures&, Answer& answer) { answer.send(index()); });
  router_.add("GET", "/plaintext", "a constant",
              [](const Request&, const Captures&, Answer& answer) {
                answer.send(text(200, "Hello, World!"));
              });
  router_.add(
      "POST", "/echo", "the body, back",
      [](const Request& request, const Captures&, Answer& answer) {
        Response response;
        const std::string_view type = request.field("Content-Type");
        response.fields.push_back(
            {"Content-Type", type.empty() ? "application/octet-stream" : std::string(type)});
        response.body = request.body;
        answer.send(std::move(response));
      },
      Router::Body::needed);
  router_.add("GET", "/metrics", "counters in Prometheus' text format",
              [this](const Request&, const Captures&, Answer& answer) { answer.send(metrics()); });
}

Response App::index() const {
  const std::vector<Router::Line> lines = router_.index();
  std::size_t width = 0;
  for (const Router::Line& line : lines) width = std::max(width, line.pattern.size());
  std::string body;
  for (const Router::Line& line : lines) {
    body += fmt::format("{:<7} {:<{}}  {}\n", line.method, line.pattern, width, line.about);
  }
  Response response;
  response.fields.push_back({"Content-Type", "text/plain; charset=utf-8"});
  response.body = std::move(body);
  return response;
}

Response App::metrics() const {
  using Type = MetricsText::Type;
  MetricsText out;
  out.add("echolab_connections", Type::gauge, "Connections that are open.",
          connections_.load(std::memory_order_relaxed));
  out.add("echolab_connections_turned_away_total", Type::counter,
          "Connections refused with 503: too many.", turned_away_.load(std::memory_order_relaxed));
  jobs_.add_metrics(out);
  sessions_->add_metrics(out);
  topics_.metrics(out);
  add_push_metrics(out, push_);
  backend_(out);
  Response response;
  response.fields.push_back({"Content-Type", "text/plain; version=0.0.4; charset=utf-8"});
  response.body = out.text();
  return response;
}

}  // namespace echolab::patterns
