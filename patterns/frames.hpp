// How each transport frames a message and a gap. Whole frames, made once for all receivers.
#pragma once

#include <string>
#include <string_view>

#include "patterns/hub.hpp"

namespace echolab::patterns {

// {"id":"EPOCH-N","topic":"..","key":"..","data":".."}; key only if there is one.
std::string json_of(std::string_view id, const Message& message);
// {"first":"EPOCH-1","last":"EPOCH-9","reason":"evicted"}
std::string json_of(const Hub& hub, const Gap& gap);

// One event of an event stream (WHATWG HTML, 9.2.6), LF only. Data is split at CR, LF and CRLF:
// a client gets each of them back as LF. Without an event's name it is a "message".
std::string sse_event(std::string_view id, std::string_view event, std::string_view data);

Frame make_frame(std::string_view id, const Message& message, Transport transport);

}  // namespace echolab::patterns
