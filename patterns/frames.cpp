#include "patterns/frames.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "patterns/http.hpp"
#include "patterns/ws_frames.hpp"

namespace echolab::patterns {
namespace {

Frame frame_of(std::string_view text) {
  const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
  return std::make_shared<const std::vector<std::byte>>(bytes, bytes + text.size());
}

// How a message is told on a WebSocket (patterns/push.hpp).
std::string push_json_of(std::string_view id, const Message& message) {
  return R"({"op":"message",)" + json_of(id, message).substr(1);
}

}  // namespace

std::string json_of(std::string_view id, const Message& message) {
  nlohmann::ordered_json json;
  json["id"] = id;
  json["topic"] = message.topic;
  if (!message.key.empty()) json["key"] = message.key;
  json["data"] = message.data;
  return json.dump();
}

std::string json_of(const Hub& hub, const Gap& gap) {
  return fmt::format(R"({{"first":"{}","last":"{}","reason":"{}"}})", hub.id_of(gap.first),
                     hub.id_of(gap.last), gap.reason);
}

std::string sse_event(std::string_view id, std::string_view event, std::string_view data) {
  std::string text = fmt::format("id: {}\n", id);
  if (!event.empty()) text += fmt::format("event: {}\n", event);
  for (;;) {
    const std::size_t end = data.find_first_of("\r\n");
    text += "data: ";
    text += data.substr(0, end);
    text += '\n';
    if (end == std::string_view::npos) break;
    const bool both = data.substr(end, 2) == "\r\n";
    data.remove_prefix(end + (both ? 2 : 1));
  }
  text += '\n';
  return text;
}

Frame make_frame(std::string_view id, const Message& message, Transport transport) {
  switch (transport) {
    case Transport::json:
      return frame_of(json_of(id, message));
    case Transport::sse:
      return as_chunk(sse_event(id, {}, message.data));
    case Transport::sse_all:
      return as_chunk(sse_event(id, {}, json_of(id, message)));
    case Transport::websocket:
      return frame_of(ws_text_frame(push_json_of(id, message)));
    case Transport::websocket_deflate:
      return frame_of(ws_deflated_text_frame(push_json_of(id, message)));
  }
  return nullptr;
}

}  // namespace echolab::patterns
