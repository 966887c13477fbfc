#include "patterns/jobs.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "patterns/durations.hpp"

namespace echolab::patterns {
namespace {

using Milliseconds = std::chrono::duration<double, std::milli>;

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

bool same_name(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&](char x, char y) { return lower(x) == lower(y); });
}

// The next element of a comma-separated list whose elements hold no quoted commas.
std::string_view take_element(std::string_view& list) {
  const std::size_t comma = std::min(list.find(','), list.size());
  const std::string_view element = trimmed(list.substr(0, comma));
  list.remove_prefix(std::min(comma + 1, list.size()));
  return element;
}

// Seconds of the first "wait=N" among the preferences. A preference that makes no sense is as if it
// were not there (RFC 7240, 2).
std::optional<std::int64_t> wait_preference(const Request& request) {
  for (const Field& field : request.fields) {
    if (!same_name(field.name, "prefer")) continue;
    for (std::string_view list = field.value; !list.empty();) {
      std::string_view preference = take_element(list);
      preference = trimmed(preference.substr(0, preference.find(';')));  // without parameters
      const std::size_t equals = preference.find('=');
      if (!same_name(trimmed(preference.substr(0, equals)), "wait")) continue;
      if (equals == preference.npos) return std::nullopt;
      std::string_view word = trimmed(preference.substr(equals + 1));
      if (word.size() >= 2 && word.front() == '"' && word.back() == '"') {
        word = word.substr(1, word.size() - 2);
      }
      std::uint32_t seconds = 0;
      const char* last = word.data() + word.size();
      const auto [end, error] = std::from_chars(word.data(), last, seconds);
      if (end != last || error != std::errc{}) return std::nullopt;
      return seconds;
    }
  }
  return std::nullopt;
}

// If-None-Match compares weakly (RFC 9110, 13.1.2).
bool matches(std::string_view if_none_match, std::string_view etag) {
  if (trimmed(if_none_match) == "*") return true;
  while (!if_none_match.empty()) {
    std::string_view candidate = take_element(if_none_match);
    if (candidate.starts_with("W/")) candidate.remove_prefix(2);
    if (candidate == etag) return true;
  }
  return false;
}

// The order, or the refusal.
std::optional<Jobs::Order> parse_order(std::string_view body, const JobLimits& limits,
                                       Response& refusal) {
  const nlohmann::json order = nlohmann::json::parse(body, nullptr, false);
  if (!order.is_object()) {
    refusal = text(400, "the body is not a JSON object");
    return std::nullopt;
  }
  const bool exponential = order.contains("distribution");
  if (exponential == order.contains("duration_ms") ||
      (exponential && order.at("distribution") != "exp")) {
    refusal = text(422, R"(give {"duration_ms": MS}, or {"distribution": "exp", "mean_ms": MS})");
    return std::nullopt;
  }
  const char* name = exponential ? "mean_ms" : "duration_ms";
  const double most = Milliseconds(limits.longest).count();
  const auto number = order.find(name);
  const double ms = number != order.end() && number->is_number() ? number->get<double>() : -1;
  if (!(ms >= 0 && ms <= most)) {
    refusal = text(422, fmt::format("{} must be a number from 0 to {}", name, most));
    return std::nullopt;
  }
  return Jobs::Order{exponential, ms};
}

}  // namespace

struct Jobs::Job {
  std::string id;
  std::string key;
  Order order;
  std::uint64_t ticket = 0;  // what those who wait are rung with
  Time start;
  Time end;  // of a cancelled one: when it was cancelled
  bool cancelled = false;
  std::list<ConnId> waiters;
  Expiries::iterator expiry;
};

namespace {

const char* const kStateNames[] = {"running", "done", "cancelled"};

}  // namespace

// One parked request.
class Jobs::Waiter final : public Pending {
 public:
  Waiter(Jobs& jobs, JobPtr job, std::list<ConnId>::iterator place, Time until, std::string known,
         std::int64_t wait)
      : jobs_(jobs),
        job_(std::move(job)),
        place_(place),
        until_(until),
        known_(std::move(known)),
        wait_(wait) {}
  ~Waiter() override { jobs_.leave(*job_, place_); }

  void on_deadline(Answer& answer) override { look(answer); }
  void on_eof(Answer& answer) override {
    until_ = answer.now();
    look(answer);
  }
  void on_post(Answer& answer, const Post& post) override {
    if (post.topic == job_->ticket) look(answer);
  }

  // `known`: If-None-Match. `wait`: seconds that were granted, if any were asked for.
  static Response respond(const View& view, std::string_view known,
                          std::optional<std::int64_t> wait) {
    const char* name = kStateNames[static_cast<std::size_t>(view.state)];
    const std::string etag = fmt::format("\"{}\"", name);
    Response response;
    if (matches(known, etag)) {
      response.status = 304;
    } else {
      nlohmann::ordered_json body{{"id", view.id}, {"state", name}};
      if (view.state == State::done) body["duration_ms"] = Milliseconds(view.duration).count();
      response = json(200, body.dump());
    }
    response.fields.push_back({"ETag", etag});
    response.fields.push_back({"Cache-Control", "no-cache"});
    if (view.state == State::running) {
      response.fields.push_back({"Retry-After", std::to_string(retry_after(view.left))});
    }
    if (wait) {
      response.fields.push_back({"Preference-Applied", fmt::format("wait={}", *wait)});
    }
    return response;
  }

 private:
  void look(Answer& answer) {
    View view;
    {
      const std::lock_guard lock(jobs_.mutex_);
      view = jobs_.view(*job_, answer.now());
    }
    if (view.state == State::running && answer.now() < until_) {
      answer.wake_at(std::min(until_, answer.now() + view.left));
    } else {
      answer.send(respond(view, known_, wait_));  // destroys this
    }
  }

  Jobs& jobs_;
  JobPtr job_;
  std::list<ConnId>::iterator place_;
  Time until_;
  std::string known_;
  std::int64_t wait_;
};

Jobs::Jobs(Poster& poster, Tickets& tickets, RandomSource random, const JobLimits& limits)
    : poster_(poster), tickets_(tickets), random_(std::move(random)), limits_(limits) {
}

Jobs::~Jobs() = default;

void Jobs::add_routes(Router& router) {
  router.add(
      "POST", "/jobs", "start a job: {\"duration_ms\": 300}, or exp with a mean_ms",
      [this](const Request& request, const Captures&, Answer& answer) { create(request, answer); });
  router.add("GET", "/jobs/{id}", "its state; Prefer: wait=N parks the request until it changes",
             [this](const Request& request, const Captures& captures, Answer& answer) {
               read(request, captures[0], answer);
             });
  router.add("DELETE", "/jobs/{id}", "cancel it",
             [this](const Request&, const Captures& captures, Answer& answer) {
               cancel(captures[0], answer);
             });
}

void Jobs::create(const Request& request, Answer& answer) {
  Response refusal;
  const std::optional<Order> order = parse_order(request.body, limits_, refusal);
  if (!order) return answer.send(std::move(refusal));
  const std::string_view key = request.field("Idempotency-Key");
  if (key.data() != nullptr && (key.empty() || key.size() > limits_.key)) {
    return answer.send(text(400, fmt::format("an Idempotency-Key has 1 to {} bytes", limits_.key)));
  }

  const Time now = answer.now();
  std::unique_lock lock(mutex_);
  expire(now);
  JobPtr job;
  if (const auto same = keys_.find(std::string(key)); !key.empty() && same != keys_.end()) {
    job = same->second;
    if (job->order != *order) {
      lock.unlock();
      return answer.send(text(422, "this Idempotency-Key was used for another request"));
    }
  } else if (jobs_.size() >= limits_.jobs) {
    const Duration left = expiries_.empty() ? Duration{} : expiries_.begin()->first - now;
    lock.unlock();
    Response full = text(429, "too many jobs");
    full.fields.push_back({"Retry-After", std::to_string(retry_after(left))});
    return answer.send(std::move(full));
  } else {
    job = std::make_shared<Job>();
    job->id = random_id(random_);
    job->key = key;
    job->order = *order;
    job->ticket = tickets_.take();
    job->start = now;
    job->end = now + duration_of(*order);
    job->expiry = expiries_.end();
    schedule(job, job->end);
    jobs_.emplace(job->id, job);
    if (!key.empty()) keys_.emplace(job->key, job);
    ++created_;
  }
  const View state = view(*job, now);
  lock.unlock();

  Response response = Waiter::respond(state, {}, {});
  response.status = 202;
  std::erase_if(response.fields, [](const Field& f) { return f.name == "ETag"; });
  response.fields.push_back({"Location", "/jobs/" + state.id});
  answer.send(std::move(response));
}

void Jobs::read(const Request& request, const std::string& id, Answer& answer) {
  const Time now = answer.now();
  const std::string known(request.field("If-None-Match"));
  std::optional<std::int64_t> wait = wait_preference(request);
  if (wait) {
    wait = std::min(*wait, std::chrono::floor<std::chrono::seconds>(limits_.wait).count());
  }
  std::unique_lock lock(mutex_);
  const JobPtr job = find(id, answer);
  if (!job) return;
  const View state = view(*job, now);
  if (state.state != State::running || wait.value_or(0) == 0) {
    lock.unlock();
    return answer.send(Waiter::respond(state, known, wait));
  }
  if (waiters_ >= limits_.waiters) {
    lock.unlock();
    Response full = text(503, "too many waiting requests: ask without Prefer: wait");
    full.fields.push_back({"Retry-After", "1"});
    return answer.send(std::move(full));
  }
  ++waiters_;
  const auto place = job->waiters.insert(job->waiters.end(), answer.id());
  lock.unlock();
  const Time until = now + std::chrono::seconds(*wait);
  answer.wait(std::make_unique<Waiter>(*this, job, place, until, known, *wait));
  answer.wake_at(std::min(until, now + state.left));
}

void Jobs::cancel(const std::string& id, Answer& answer) {
  const Time now = answer.now();
  std::unique_lock lock(mutex_);
  const JobPtr job = find(id, answer);
  if (!job) return;
  std::vector<ConnId> waiting;
  if (view(*job, now).state == State::running) {
    job->cancelled = true;
    schedule(job, now);
    waiting.assign(job->waiters.begin(), job->waiters.end());
    ++cancelled_;
  }
  const View state = view(*job, now);
  lock.unlock();
  if (!waiting.empty()) poster_.post(waiting, {job->ticket, nullptr});
  answer.send(Waiter::respond(state, {}, {}));
}

Duration Jobs::duration_of(const Order& order) const {
  double ms = order.ms;
  if (order.exponential) {
    std::uint64_t bits = 0;
    random_(std::as_writable_bytes(std::span(&bits, 1)));
    // 53 random bits as a number in (0, 1], whose logarithm is finite.
    ms *= -std::log((static_cast<double>(bits >> 11) + 1) * 0x1p-53);
  }
  return std::min(limits_.longest, std::chrono::round<Duration>(Milliseconds(ms)));
}

Jobs::View Jobs::view(const Job& job, Time now) const {
  View v{job.id, State::running, job.end - now, job.end - job.start};
  if (job.cancelled) {
    v.state = State::cancelled;
  } else if (now >= job.end) {
    v.state = State::done;
  }
  return v;
}

// The lock is held, also while the refusal is written: that takes no other.
Jobs::JobPtr Jobs::find(const std::string& id, Answer& answer) {
  expire(answer.now());
  if (const auto job = jobs_.find(id); job != jobs_.end()) return job->second;
  if (gone_.contains(id)) {
    answer.send(text(410, "this job has ended and is no longer kept"));
  } else {
    answer.send(text(404, "no such job"));
  }
  return nullptr;
}

void Jobs::expire(Time now) {
  while (!expiries_.empty() && expiries_.begin()->first <= now) {
    const JobPtr job = expiries_.begin()->second;
    expiries_.erase(expiries_.begin());
    jobs_.erase(job->id);
    if (!job->key.empty()) keys_.erase(job->key);
    gone_order_.emplace_back(now + limits_.gone_for, job->id);
    gone_.insert(job->id);
  }
  while (!gone_order_.empty() &&
         (gone_order_.size() > limits_.gone || gone_order_.front().first <= now)) {
    gone_.erase(gone_order_.front().second);
    gone_order_.pop_front();
  }
}

void Jobs::schedule(const JobPtr& job, Time end) {
  if (job->expiry != expiries_.end()) expiries_.erase(job->expiry);
  job->end = end;
  job->expiry = expiries_.emplace(end + limits_.keep, job);
}

void Jobs::leave(Job& job, std::list<ConnId>::iterator place) {
  const std::lock_guard lock(mutex_);
  job.waiters.erase(place);
  --waiters_;
}

void Jobs::add_metrics(MetricsText& text) const {
  using Type = MetricsText::Type;
  const std::lock_guard lock(mutex_);
  text.add("echolab_jobs", Type::gauge, "Jobs that run or are kept after their end.", jobs_.size());
  text.add("echolab_jobs_created_total", Type::counter, "Jobs started.", created_);
  text.add("echolab_jobs_cancelled_total", Type::counter, "Jobs cancelled.", cancelled_);
  text.add("echolab_jobs_waiters", Type::gauge, "Requests parked until a job changes.", waiters_);
}

}  // namespace echolab::patterns
