// A server that is itself a caller: GET /gateway asks an upstream (an echo server) before it
// answers. What the server does meanwhile is the I/O model's business: a thread blocks, epoll
// checks readiness, io_uring is told, libuv blocks a thread of its pool.
//
// 200 with how long the upstream took; 502 if it could not be reached, broke off or sent something
// else than it was sent; 504 if it took longer than ?timeout=; 503 if there is none.
#pragma once

#include <optional>

#include "patterns/http.hpp"
#include "patterns/random.hpp"
#include "patterns/router.hpp"

namespace echolab::patterns {

struct GatewayLimits {
  Duration timeout = std::chrono::seconds(5);   // for the upstream, if the client names none
  Duration longest = std::chrono::seconds(60);  // that a client may name; more: 400
};

class Gateway {
 public:
  Gateway(std::optional<Upstream> upstream, RandomSource random, const GatewayLimits& limits)
      : upstream_(std::move(upstream)), random_(std::move(random)), limits_(limits) {}
  void add_routes(Router&);

 private:
  void ask(const Request&, Answer&) const;

  const std::optional<Upstream> upstream_;
  const RandomSource random_;
  const GatewayLimits limits_;
};

}  // namespace echolab::patterns
