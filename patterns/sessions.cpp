#include "patterns/sessions.hpp"

#include <list>
#include <mutex>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <utility>

namespace echolab::patterns {

Response respond(SessionRequest::Verb verb, const SessionOutcome& outcome) {
  using Error = SessionOutcome::Error;
  Response response;
  switch (outcome.error) {
    case Error::none: {
      const bool created = verb == SessionRequest::Verb::create;
      const nlohmann::ordered_json body{{"id", outcome.id}, {"count", outcome.count}};
      response = json(created ? 201 : 200, body.dump());
      if (created) response.fields.push_back({"Location", "/session/" + outcome.id});
      break;
    }
    case Error::unknown:
      response = text(404, "no such session");
      break;
    case Error::unauthorized:
      response = text(401, "this token is not valid, or no longer");
      response.fields.push_back(
          {"WWW-Authenticate", R"(Bearer realm="session", error="invalid_token")"});
      break;
    case Error::full:
      response = text(503, "no room for another session");
      response.fields.push_back({"Retry-After", "1"});
      break;
    case Error::busy:
      response = text(503, "the session store cannot be used now");
      response.fields.push_back({"Retry-After", "1"});
      break;
  }
  response.fields.push_back({"Cache-Control", "no-store"});  // it is a secret of its client's
  return response;
}

void add_session_routes(Router& router, SessionStore& store) {
  using Verb = SessionRequest::Verb;
  router.add("POST", "/session", "start a session with a counter",
             [&store](const Request&, const Captures&, Answer& answer) {
               store.ask({Verb::create, {}}, answer);
             });
  router.add("GET", "/session/{id}", "its counter",
             [&store](const Request&, const Captures& captures, Answer& answer) {
               store.ask({Verb::read, captures[0]}, answer);
             });
  router.add("POST", "/session/{id}/increment", "add one to it",
             [&store](const Request&, const Captures& captures, Answer& answer) {
               store.ask({Verb::increment, captures[0]}, answer);
             });
}

namespace {

class MemorySessions final : public SessionStore {
 public:
  MemorySessions(const SessionLimits& limits, RandomSource random)
      : limits_(limits), random_(std::move(random)) {}

  void ask(SessionRequest request, Answer& answer) override {
    const SessionOutcome outcome = request.verb == SessionRequest::Verb::create
                                       ? create(answer.now())
                                       : look(request, answer.now());
    answer.send(respond(request.verb, outcome));
  }

  void add_metrics(MetricsText& text) const override {
    const std::lock_guard lock(mutex_);
    text.add("echolab_sessions", MetricsText::Type::gauge, "Sessions kept in memory.",
             by_use_.size());
  }

 private:
  struct Entry {
    std::string id;
    std::uint64_t count = 0;
    Time expires;
  };

  SessionOutcome create(Time now) {
    std::string id = random_id(random_);
    const std::lock_guard lock(mutex_);
    expire(now);
    if (by_use_.size() >= limits_.sessions) return {SessionOutcome::Error::full, {}, 0};
    by_use_.push_back({id, 0, now + limits_.ttl});
    by_id_.emplace(id, std::prev(by_use_.end()));
    return {SessionOutcome::Error::none, std::move(id), 0};
  }

  SessionOutcome look(const SessionRequest& request, Time now) {
    const std::lock_guard lock(mutex_);
    expire(now);
    const auto found = by_id_.find(request.id);
    if (found == by_id_.end()) return {SessionOutcome::Error::unknown, {}, 0};
    Entry& entry = *found->second;
    if (request.verb == SessionRequest::Verb::increment) {
      ++entry.count;
      entry.expires = now + limits_.ttl;
      by_use_.splice(by_use_.end(), by_use_, found->second);
    }
    return {SessionOutcome::Error::none, entry.id, entry.count};
  }

  // All live equally long since their last use, so that the first in the list goes first.
  void expire(Time now) {
    while (!by_use_.empty() && by_use_.front().expires <= now) {
      by_id_.erase(by_use_.front().id);
      by_use_.pop_front();
    }
  }

  const SessionLimits limits_;
  const RandomSource random_;
  mutable std::mutex mutex_;
  std::list<Entry> by_use_;
  std::unordered_map<std::string, std::list<Entry>::iterator> by_id_;
};

}  // namespace

std::unique_ptr<SessionStore> make_memory_sessions(const SessionLimits& limits,
                                                   RandomSource random) {
  return std::make_unique<MemorySessions>(limits, std::move(random));
}

}  // namespace echolab::patterns
