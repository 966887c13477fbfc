// The opening handshake of a WebSocket (RFC 6455, 4.2) and of its compression (RFC 7692, 7.1).
// SHA-1 and base64 by OpenSSL. Any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "patterns/http.hpp"

namespace echolab::patterns {

struct WsHandshake {
  Response response;     // 101, or why not: 400, 403, 426
  bool deflate = false;  // permessage-deflate is agreed on
  [[nodiscard]] bool accepted() const { return response.status == 101; }
};

// `origins`: whose pages may connect, as a browser writes them ("https://example.org"); "*" stands
// for all. Empty: pages of this host only. A request without Origin is not from a page; what else
// could be said about it is for others to check (RFC 6455, 10.2).
WsHandshake ws_handshake(const Request&, const std::vector<std::string>& origins);

// Sec-WebSocket-Accept for a key.
std::string ws_accept(std::string_view key);
// The answer to a Sec-WebSocket-Extensions: the first offer of permessage-deflate that can be
// honoured. Neither side takes a context over: so a compressed frame fits all receivers, and
// nothing is kept between messages. Nothing: none can be honoured, or the field is malformed.
std::optional<std::string> ws_agree_on_deflate(std::string_view offers);

}  // namespace echolab::patterns
