// A crowd on one topic: a thousand event streams and a thousand WebSockets on every backend, each
// of which gets every message, in order. Where a model's threads are fewer than the crowd, as many
// come as it serves, and the test says how many.
#include <sys/resource.h>

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "patterns/push.hpp"
#include "patterns/topics.hpp"
#include "tests/hub_doubles.hpp"
#include "tests/skip.hpp"
#include "tests/topic_ws_clients.hpp"

namespace echolab::test {
namespace {

using namespace patterns;
using nlohmann::json;

// Beside two for each subscriber, its own end and the server's: the loops' and the test's.
constexpr rlim_t kOtherDescriptors = 200;

class CrowdService final : public Service {
 public:
  explicit CrowdService(Poster& poster) : hub(poster, {}, kEpoch), topics_(hub, {}) {
    topics_.add_routes(router_);
    add_push_routes(router_, push_);
  }
  std::unique_ptr<Session> accept() override { return make_http_session(http_); }
  [[nodiscard]] bool pushes() const override { return true; }

  Hub hub;

 private:
  Topics topics_;
  PushContext push_{hub, topics_.consumers(), {}, {}, {}, {}};
  Router router_;
  HttpContext http_{router_, {}, {{}, {}}};
};

// One subscriber, and what it was told: "1:payload".
class Listener {
 public:
  explicit Listener(std::unique_ptr<Peer> peer) : peer_(std::move(peer)) {}
  virtual ~Listener() = default;
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  // False: nothing was there.
  bool read() {
    const Blob bytes = peer_->read_some(1 << 16);
    if (!bytes.empty()) take({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    return !bytes.empty();
  }
  bool wait() { return peer_->wait(true, false, kPatience); }
  [[nodiscard]] bool refused() const { return peer_->state() != Peer::State::open; }
  std::vector<std::string> told;
  bool ready = false;  // it is subscribed

 protected:
  virtual void take(const std::string& bytes) = 0;
  void hear(const std::string& id, const std::string& data) {
    told.push_back(fmt::format("{}:{}", number_of(id), data));
  }
  std::unique_ptr<Peer> peer_;
};

class StreamListener final : public Listener {
 public:
  explicit StreamListener(std::unique_ptr<Peer> peer) : Listener(std::move(peer)) {
    peer_->send(blob_of("GET /topics/t/events HTTP/1.1\r\nHost: h\r\n\r\n"));
  }

 private:
  void take(const std::string& bytes) override {
    response_.feed(bytes);
    events_.feed(response_.take_body());
    ready = !events_.last_event_id.empty();
    for (const EventReader::Event& event : events_.take()) hear(event.id, event.data);
  }
  ResponseReader response_;
  EventReader events_;
};

class PushListener final : public Listener {
 public:
  explicit PushListener(std::unique_ptr<Peer> peer) : Listener(std::move(peer)) {
    peer_->send(blob_of(ws_handshake_request("/ws?topic=t", false)));
  }

 private:
  void take(const std::string& bytes) override {
    for (const std::string& line : reader_.feed(bytes)) {
      const json said = json::parse(line.substr(line.find(':') + 1));
      if (said.at("op") == "subscribed") {
        ready = true;
      } else {
        hear(said.at("id"), said.at("data"));
      }
    }
  }
  WsReader reader_;
};

// Raises the limit of open files as far as it goes. False: said aloud why there are too few.
bool enough_descriptors(std::size_t subscribers) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  const rlim_t needed = 2 * subscribers + kOtherDescriptors;
  if (limit.rlim_max >= needed) return true;
  skip(fmt::format("{} subscribers need {} descriptors, of which this machine gives {}",
                   subscribers, needed, limit.rlim_max));
  SUCCEED();
  return false;
}

CONFORMANCE(crowd, "a thousand event streams and a thousand WebSockets hear all, in order",
            Over::all) {
  const std::size_t each = scaled(1000, 100);  // of a transport
  if (!enough_descriptors(2 * each)) return;
  auto world = make_world(target);
  auto owned = std::make_unique<CrowdService>(world->backend());
  CrowdService& service = *owned;
  world->start(std::move(owned));
  auto publisher = world->connect();

  std::vector<std::unique_ptr<Listener>> crowd;
  const std::size_t wanted = std::min(2 * each, target.capacity() - 1);
  bool wall = wanted < 2 * each;
  while (crowd.size() < wanted) {
    auto peer = world->connect();
    std::unique_ptr<Listener> one;
    if (crowd.size() % 2 == 0) {
      one = std::make_unique<StreamListener>(std::move(peer));
    } else {
      one = std::make_unique<PushListener>(std::move(peer));
    }
    while (!one->ready && !one->refused()) {
      if (!one->read() && !one->refused()) REQUIRE(one->wait());
    }
    if (one->refused() && target.blocking()) {
      wall = true;
      break;
    }
    REQUIRE(one->ready);
    crowd.push_back(std::move(one));
  }
  fmt::print("{}: {} of {} subscribers{}\n", target.name, crowd.size(), 2 * each,
             wall ? ": all that its threads can serve, one or two to a connection" : "");
  REQUIRE(!crowd.empty());
  CHECK(service.hub.topic("t")->subscribers == crowd.size());

  std::vector<std::string> expected;
  for (std::size_t i = 1; i <= scaled(20, 5); ++i) {
    const std::string payload = fmt::format("{:0>100}", i);
    publisher->send(blob_of(fmt::format(
        "POST /topics/t HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{}", payload)));
    expected.push_back(fmt::format("{}:{}", i, payload));
  }
  for (std::size_t i = 0; i < crowd.size(); ++i) {
    INFO("subscriber " << i);
    Listener& one = *crowd[i];
    while (one.told.size() < expected.size() && !one.refused()) {
      if (!one.read() && !one.refused()) REQUIRE(one.wait());
    }
    REQUIRE(one.told == expected);
  }
  crowd.clear();
  CHECK(world->eventually([&] { return service.hub.totals().subscriptions == 0; }));
  world->finish();
}

}  // namespace
}  // namespace echolab::test
