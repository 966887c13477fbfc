// A WebSocket as the server's side of one connection, after the handshake (RFC 6455, 5 to 7, with
// messages compressed as in RFC 7692). What is spoken on it is a WsHandler.
//
// Clients that break a rule get a Close with the code that the RFC names: 1002 for frames that may
// not be there (also unmasked ones), 1007 for text that is not UTF-8 or data that does not inflate,
// 1009 for messages over the limit. Pings are answered here, and sent when nothing was heard.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "backends/session.hpp"
#include "patterns/ws_frames.hpp"

namespace echolab::patterns {

// Each is an option of pattern-server.
struct WsLimits {
  std::size_t message = 1024 * 1024;              // bytes of a message, inflated; more: 1009
  Duration heartbeat = std::chrono::seconds(30);  // silence after which a ping is sent
  Duration pong = std::chrono::seconds(10);       // wait for its pong; longer: 1011
  Duration close = std::chrono::seconds(5);  // wait for the peer's Close; then the connection ends
};

// Close codes that we send (RFC 6455, 7.4.1, and the IANA registry for 1013).
struct WsCode {
  static constexpr std::uint16_t going_away = 1001;
  static constexpr std::uint16_t protocol_error = 1002;
  static constexpr std::uint16_t unsupported_data = 1003;
  static constexpr std::uint16_t invalid_payload = 1007;
  static constexpr std::uint16_t too_big = 1009;
  static constexpr std::uint16_t internal_error = 1011;
  static constexpr std::uint16_t try_again_later = 1013;
};

// The connection, for the length of one callback. When it is closing, nothing is sent any more.
class WebSocket {
 public:
  WebSocket() = default;
  WebSocket(const WebSocket&) = delete;
  WebSocket& operator=(const WebSocket&) = delete;
  virtual ~WebSocket() = default;

  // A message; `type` is text (then it must be UTF-8) or binary. Compressed if that was agreed on
  // and makes it shorter. Copied.
  virtual void send(WsOpcode type, std::string_view payload) = 0;
  // Not copied: a frame made by ws_text_frame or, where deflate() says so, ws_deflated_text_frame.
  virtual void share(const Frame& frame) = 0;
  // Sends a Close, and waits a bounded time for the peer's. The reason is cut to what fits.
  virtual void close(std::uint16_t code, std::string_view reason) = 0;
  // As in Out.
  virtual void wake_at(Time) = 0;
  virtual void await_room() = 0;

  [[nodiscard]] virtual bool deflate() const = 0;
  [[nodiscard]] virtual ConnId id() const = 0;
  [[nodiscard]] virtual Time now() const = 0;
  [[nodiscard]] virtual std::size_t queued() const = 0;  // bytes not taken by the kernel yet, with
                                                         // those of this callback
};

// What is spoken on a WebSocket. Destroyed as soon as the connection is closing.
class WsHandler {
 public:
  WsHandler() = default;
  WsHandler(const WsHandler&) = delete;
  WsHandler& operator=(const WsHandler&) = delete;
  virtual ~WsHandler() = default;

  virtual void on_open(WebSocket&) {}
  // A whole message, text (which is UTF-8) or binary. It dies when the call returns.
  virtual void on_message(WebSocket&, WsOpcode type, std::string_view payload) = 0;
  virtual void on_post(WebSocket&, const Post&) {}
  virtual void on_deadline(WebSocket&) {}
  virtual void on_room(WebSocket&) {}
};

// The limits must outlive the session.
std::unique_ptr<Session> make_websocket(const WsLimits&, bool deflate, std::unique_ptr<WsHandler>);

}  // namespace echolab::patterns
