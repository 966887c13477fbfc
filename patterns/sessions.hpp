// A counter per client, to compare where a server may keep state: in its own memory, in a token
// that the client holds, or in an external store. POST /session starts one, POST
// /session/{id}/increment counts, GET /session/{id} reads.
//
// What survives a restart: memory nothing; the token everything, with the same key; the store
// everything that was acknowledged.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "patterns/http.hpp"
#include "patterns/metrics.hpp"
#include "patterns/random.hpp"
#include "patterns/router.hpp"

namespace echolab::patterns {

struct SessionLimits {
  std::size_t sessions = 100'000;           // kept by the server; more: 503
  Duration ttl = std::chrono::hours(1);     // since the last increment; then unknown
  std::size_t queue = 1024;                 // requests that wait for the store; more: 503
  std::size_t batch = 256;                  // requests in one transaction of the store
  std::size_t file = 256 * 1024 * 1024;     // bytes of the store's database; more: 503
  Duration busy = std::chrono::seconds(1);  // for another process to let go of the store; then 503
};

struct SessionRequest {
  enum class Verb : std::uint8_t { create, read, increment };
  Verb verb = Verb::read;
  std::string id;  // empty for create
};

struct SessionOutcome {
  enum class Error : std::uint8_t {
    none,
    unknown,       // 404
    unauthorized,  // 401: not a token of ours, or expired
    full,          // 503: no room for another
    busy,          // 503: the store cannot be used now
  };
  Error error = Error::none;
  std::string id;
  std::uint64_t count = 0;
};
Response respond(SessionRequest::Verb, const SessionOutcome&);

// Any thread.
class SessionStore {
 public:
  SessionStore() = default;
  SessionStore(const SessionStore&) = delete;
  SessionStore& operator=(const SessionStore&) = delete;
  virtual ~SessionStore() = default;

  // Answers now, or parks the request until it can.
  virtual void ask(SessionRequest, Answer&) = 0;
  virtual void add_metrics(MetricsText&) const {}
};

// The store must outlive the router's use.
void add_session_routes(Router&, SessionStore&);

// In the server's memory: the fastest, and gone with it.
std::unique_ptr<SessionStore> make_memory_sessions(const SessionLimits&, RandomSource);

}  // namespace echolab::patterns
