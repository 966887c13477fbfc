// Jobs: work that takes a while, whose client polls (GET /jobs/{id}), or is parked until there is
// something to tell (the same with Prefer: wait=N, RFC 7240).
//
// A job is its start and its duration. Nothing runs: whether it is done follows from the time, and
// a parked client's own deadline is the only timer. Only a cancellation comes from elsewhere; it
// rings those who wait.
//
// The handle is 128 random bits: who does not know it cannot ask. It is good as long as the server
// lives and for JobLimits::keep after the job's end; after that the answer is 410 for a while, then
// 404. POST with an Idempotency-Key (draft-ietf-httpapi-idempotency-key-header) gives the same job
// for the same key as long as the job is kept, and 422 if the request differs.
#pragma once

#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "patterns/http.hpp"
#include "patterns/metrics.hpp"
#include "patterns/random.hpp"
#include "patterns/router.hpp"
#include "patterns/tickets.hpp"

namespace echolab::patterns {

struct JobLimits {
  std::size_t jobs = 10'000;                    // running or kept; more: 429
  std::size_t waiters = 10'000;                 // parked requests; more: 503
  std::size_t gone = 10'000;                    // handles remembered for 410
  std::size_t key = 255;                        // bytes of an Idempotency-Key; longer: 400
  Duration longest = std::chrono::hours(1);     // of a job; asked for more: 422, drawn more: cut
  Duration wait = std::chrono::seconds(60);     // of a parked request; asked for more: cut
  Duration keep = std::chrono::minutes(5);      // after a job's end
  Duration gone_for = std::chrono::minutes(5);  // and then 410 for so long
};

// Any thread. Lock order: session, jobs, mailbox.
class Jobs {
 public:
  Jobs(Poster& poster, Tickets& tickets, RandomSource random, const JobLimits& limits);
  ~Jobs();  // after all sessions

  void add_routes(Router&);
  void add_metrics(MetricsText&) const;

  // What a client asks for: so many milliseconds, or a random time with that mean.
  struct Order {
    bool exponential = false;
    double ms = 0;
    friend bool operator==(const Order&, const Order&) = default;
  };

 private:
  enum class State : std::uint8_t { running, done, cancelled };
  struct Job;
  using JobPtr = std::shared_ptr<Job>;
  using Expiries = std::multimap<Time, JobPtr>;
  class Waiter;
  struct View {  // a job at one time
    std::string id;
    State state = State::running;
    Duration left{};      // running
    Duration duration{};  // done
  };

  void create(const Request&, Answer&);
  void read(const Request&, const std::string& id, Answer&);
  void cancel(const std::string& id, Answer&);

  Duration duration_of(const Order&) const;
  View view(const Job&, Time now) const;
  // Null, and the refusal, if it is not there.
  JobPtr find(const std::string& id, Answer&);
  void expire(Time now);
  void schedule(const JobPtr&, Time end);
  void leave(Job&, std::list<ConnId>::iterator);

  Poster& poster_;
  Tickets& tickets_;
  const RandomSource random_;
  const JobLimits limits_;

  mutable std::mutex mutex_;  // all below
  std::unordered_map<std::string, JobPtr> jobs_;
  std::unordered_map<std::string, JobPtr> keys_;
  Expiries expiries_;
  std::deque<std::pair<Time, std::string>> gone_order_;
  std::unordered_set<std::string> gone_;
  std::size_t waiters_ = 0;
  std::uint64_t created_ = 0;
  std::uint64_t cancelled_ = 0;
};

}  // namespace echolab::patterns
