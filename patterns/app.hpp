// All patterns together as one service: what pattern-server serves.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "patterns/gateway.hpp"
#include "patterns/http.hpp"
#include "patterns/hub.hpp"
#include "patterns/jobs.hpp"
#include "patterns/metrics.hpp"
#include "patterns/push.hpp"
#include "patterns/random.hpp"
#include "patterns/router.hpp"
#include "patterns/sessions.hpp"
#include "patterns/tickets.hpp"
#include "patterns/token.hpp"
#include "patterns/topics.hpp"
#include "patterns/work.hpp"

namespace echolab::patterns {

struct AppLimits {
  std::size_t connections = 20'000;  // at the same time; more: 503 and the end
  HttpLimits http;
  HubLimits hub;
  TopicLimits topics;
  WsLimits websocket;
  PushLimits push;
  JobLimits jobs;
  SessionLimits sessions;
  GatewayLimits gateway;
  WorkLimits work;
};

struct AppOptions {
  enum class Sessions : std::uint8_t { memory, token, sqlite };
  AppLimits limits;
  std::optional<Upstream> upstream;
  Sessions sessions = Sessions::memory;
  TokenKey token_key{};              // for token
  std::string session_db;            // for sqlite: its file
  std::vector<std::string> origins;  // that may open a WebSocket, beside this server's own
};

class App final : public Service {
 public:
  // The poster must outlive it. `backend` adds the backend's own counters to /metrics. May throw
  // what make_sqlite_sessions() throws.
  App(const AppOptions&, Poster& poster, const WallClock& clock, RandomSource random,
      MetricsSource backend);

  std::unique_ptr<Session> accept() override;
  [[nodiscard]] bool pushes() const override { return true; }

 private:
  void add_plain_routes();
  Response index() const;
  Response metrics() const;

  const std::size_t most_connections_;
  std::atomic<std::size_t> connections_{0};
  std::atomic<std::uint64_t> turned_away_{0};
  const MetricsSource backend_;
  Tickets tickets_;
  Jobs jobs_;
  std::unique_ptr<SessionStore> sessions_;
  Gateway gateway_;
  Hub hub_;
  Topics topics_;
  PushContext push_;
  Router router_;
  HttpContext http_;
};

}  // namespace echolab::patterns
