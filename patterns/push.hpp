// Push: topics over a WebSocket, and a plain echo.
//
//   GET /ws        JSON text messages, below. ?topic=T&cursor=ID&policy=P&retained=true subscribes
//                  at once.
//   GET /ws/echo   every message comes back with its type.
//
// A client says
//   {"op":"subscribe","topic":T,"cursor":ID,"policy":P,"retained":true}
//       Only topic is needed; "*" is all topics. cursor: the id of the last message seen,
//       "earliest" or "latest" (the default). policy: drop-oldest (the default), drop-newest,
//       conflate, disconnect, block-publisher. retained: begin with the topic's last message.
//   {"op":"unsubscribe","topic":T}
//   {"op":"publish","topic":T,"data":S,"key":K,"ref":R}
//       key is what conflate goes by. ref is any JSON but null and comes back with the answer.
// and hears
//   {"op":"subscribed","topic":T,"policy":P,"cursor":ID}   before its messages; they follow ID
//   {"op":"unsubscribed","topic":T}
//   {"op":"message","id":ID,"topic":T,"key":K,"data":S}    key only if there is one
//   {"op":"gap","topic":T,"first":ID,"last":ID,"reason":R} messages that will not come
//   {"op":"published","id":ID,"ref":R}
//   {"op":"error","reason":WHY,"ref":R}                    nothing was done
//
// Publications of one connection are made in their order. One to a topic that a subscriber holds up
// (block-publisher) waits, and the later ones behind it; everything else goes on. Each waits for
// ConsumerLimits::deadline at most, then it is answered with an error.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "patterns/consumer.hpp"
#include "patterns/hub.hpp"
#include "patterns/metrics.hpp"
#include "patterns/router.hpp"
#include "patterns/websocket.hpp"

namespace echolab::patterns {

// Each is an option of pattern-server. Per connection, where nothing else is said; more is answered
// with an error.
struct PushLimits {
  std::size_t connections = 50'000;  // WebSockets of the server; more: 503
  std::size_t subscriptions = 64;
  std::size_t waiting = 64;                 // publications that wait for a topic held up
  std::size_t waiting_bytes = 1024 * 1024;  // of those publications, their refs included
};

// What every WebSocket of a server shares.
struct PushContext {
  Hub& hub;
  ConsumerTotals& totals;
  std::vector<std::string> origins;  // as for ws_handshake
  WsLimits websocket;
  PushLimits push;
  ConsumerLimits consumer;
  std::atomic<std::size_t> connections = 0;  // open now
};

// The context must outlive the router and the connections.
void add_push_routes(Router&, PushContext&);
void add_push_metrics(MetricsText&, const PushContext&);

}  // namespace echolab::patterns
