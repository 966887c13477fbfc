// One message to many subscribers, one message a slice; every one of them must get every byte.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "harness/pattern_parts.hpp"
#include "harness/pattern_servers.hpp"
#include "harness/subscribers.hpp"

namespace echolab::harness {
namespace {

constexpr unsigned kPayload = 100;  // bytes
constexpr const char* kNews = "news";

void check_status(std::string_view received, std::string_view status) {
  if (received.substr(0, status.size()) != status.substr(0, received.size())) {
    throw PatternError(
        fmt::format("a subscriber was told '{}'", received.substr(0, received.find('\r'))));
  }
}

// Whether a subscriber has heard all that comes before the first message.
bool ready(const std::string& transport, std::string_view received) {
  if (transport == "sse") {
    check_status(received, "HTTP/1.1 200 OK");
    return received.ends_with("\n\n\r\n");  // of the chunk with the first id
  }
  check_status(received, "HTTP/1.1 101 Switching Protocols");
  return received.find("\r\n\r\n\x81") != std::string_view::npos &&
         received.ends_with("}");  // of {"op":"subscribed",...}
}

struct FanoutServer {
  FanoutRow* row = nullptr;
  std::optional<Server> server{};
  std::unique_ptr<Subscribers> subscribers{};
  std::unique_ptr<Asker> publisher{};
};

std::string wire_bytes(const std::string& transport, const std::string& id,
                       const std::string& data) {
  return transport == "sse" ? sse_bytes(id, data) : websocket_bytes(id, kNews, data);
}

void start(FanoutServer& contender, const std::string& transport, const PatternOptions& options) {
  const std::string& name = contender.row->contender;
  const bool control = name == kControl;
  contender.server.emplace(control ? start_raw_fanout(options.server_cpus)
                                   : start_pattern_server(name, options.server_cpus));
  contender.subscribers = std::make_unique<Subscribers>(
      contender.server->port(), options.subscribers,
      control ? std::string() : waiting_request(transport, kNews),
      [&](std::string_view received) { return control || ready(transport, received); });
  contender.publisher = std::make_unique<Asker>(contender.server->port());
  contender.server->accounting().refresh();
}

// Publishes, and returns when every subscriber has got it.
void tell_all(FanoutServer& contender, const std::string& transport, const std::string& data,
              unsigned number) {
  std::string message;
  if (contender.row->contender == kControl) {
    message = wire_bytes(transport, fmt::format("00000000-{}", number), data);
    contender.publisher->send(message);
    contender.publisher->receive(message.size());
  } else {
    const std::string answer = contender.publisher->ask(
        fmt::format("POST /topics/{} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{}",
                    kNews, data.size(), data));
    const auto published = nlohmann::json::parse(body_of(answer));
    if (published.at("subscribers").get<std::size_t>() != contender.subscribers->size()) {
      throw PatternError("the server has another number of subscribers");
    }
    message = wire_bytes(transport, published.at("id").get<std::string>(), data);
  }
  contender.subscribers->expect(message);
  contender.row->message_bytes = message.size();
}

}  // namespace

void PatternBench::fanout(const std::string& transport) {
  record_.payload_bytes = kPayload;
  FanoutCell& cell = record_.fanout.emplace_back();
  cell.transport = transport;
  cell.rows.resize(options_.backends.size() + 1);
  std::vector<FanoutServer> contenders(cell.rows.size());
  std::vector<FanoutServer*> order;
  for (std::size_t i = 0; i < contenders.size(); ++i) {
    FanoutServer& contender = contenders[i];
    contender.row = &cell.rows[i];
    contender.row->contender = i == 0 ? kControl : options_.backends[i - 1];
    step_(fmt::format("{} subscribers to {} by {}", options_.subscribers, contender.row->contender,
                      transport),
          static_cast<double>(i), static_cast<double>(contenders.size()));
    attempt(contender, [&] { start(contender, transport, options_); });
    order.push_back(&contender);
  }
  // The first rounds warm up and are not kept.
  constexpr unsigned kWarmUp = 3;
  for (unsigned number = 1; number <= options_.fanout_rounds + kWarmUp; ++number) {
    step_("fan-out by " + transport, number, options_.fanout_rounds + kWarmUp);
    std::shuffle(order.begin(), order.end(), random_);
    std::string data = fmt::format("{:08}-", number);
    while (data.size() < kPayload) data += static_cast<char>('a' + random_() % 26);
    for (FanoutServer* contender : order) {
      attempt(*contender, [&] {
        const std::uint64_t cpu = cpu_at_rest(*contender->server);
        tell_all(*contender, transport, data, number);
        const std::uint64_t used = cpu_at_rest(*contender->server) - cpu;
        if (number > kWarmUp) contender->row->slices.push_back({number - kWarmUp, used});
      });
    }
  }
}

}  // namespace echolab::harness
