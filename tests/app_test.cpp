// All patterns together over every backend, and in virtual time: what only shows when HTTP, a
// feature and an I/O model meet. What features do on their own is in their own tests.
#include "patterns/app.hpp"

#include <nlohmann/json.hpp>

#include "tests/helpers.hpp"
#include "tests/http_client.hpp"

namespace echolab::test {
namespace {

using namespace patterns;
using harness::contains;
using nlohmann::json;

using Habit = TestUpstream::Habit;

struct AppFixture {
  explicit AppFixture(const Target& target) : world(make_world(target)) {}
  void start(AppOptions options = {}) {
    if (upstream) options.upstream = upstream->address();
    const WallClock clock{std::chrono::system_clock::time_point(1'000'000s), world->now()};
    world->start(std::make_unique<App>(options, world->backend(), clock, system_random(),
                                       [](MetricsText&) {}));
  }
  HttpClient connect() { return HttpClient(world->connect()); }
  std::uint64_t metric(const std::string& name) {
    if (!watcher) watcher.emplace(connect());
    const std::string text = "\n" + watcher->ask("GET", "/metrics").body;
    const std::size_t at = text.find("\n" + name + " ");
    REQUIRE(at != std::string::npos);
    return std::stoull(text.substr(at + name.size() + 2));
  }
  void await(const std::string& name, std::uint64_t value) {
    CAPTURE(name);
    REQUIRE(world->eventually([&] { return metric(name) == value; }));
  }
  void finish() {
    watcher.reset();
    world->finish();
  }

  std::unique_ptr<World> world;
  TestUpstream* upstream = nullptr;  // the world's
  std::optional<HttpClient> watcher;
};

CONFORMANCE(app_gateway, "the gateway answers when its upstream does", Over::all) {
  AppFixture f(target);
  f.upstream = &f.world->upstream();
  f.start();
  HttpClient client = f.connect();
  f.upstream->behave(Habit::echo, 5ms);
  for (int i = 0; i < 3; ++i) {
    const HttpReply reply = client.ask("GET", "/gateway");
    REQUIRE(reply.status == 200);
    CHECK(json::parse(reply.body).at("upstream_us") >= 5000);
  }
  CHECK(f.upstream->accepted() == 1);  // one connection, used again

  f.upstream->behave(Habit::silent);
  CHECK(client.ask("GET", "/gateway?timeout=20ms").status == 504);
  f.upstream->behave(Habit::half);
  CHECK(client.ask("GET", "/gateway").status == 502);
  f.upstream->behave(Habit::hang_up);
  CHECK(client.ask("GET", "/gateway").status == 502);
  f.upstream->behave(Habit::echo);
  CHECK(client.ask("GET", "/gateway").status == 200);
  f.finish();
}

CONFORMANCE(app_gateway_refused, "the gateway to where nobody listens is 502", Over::one_loop) {
  AppFixture f(target);
  f.upstream = &f.world->upstream(TestUpstream::Listens::no);
  f.start();
  HttpClient client = f.connect();
  for (int i = 0; i < 3; ++i) CHECK(client.ask("GET", "/gateway").status == 502);
  f.finish();
}

CONFORMANCE(app_gateway_unreachable, "the gateway to who does not answer the door is 504",
            Over::one_loop) {
  AppFixture f(target);
  f.upstream = &f.world->upstream(TestUpstream::Listens::full);
  f.start();
  HttpClient client = f.connect();
  CHECK(client.ask("GET", "/gateway?timeout=30ms").status == 504);
  f.finish();
}

CONFORMANCE(app_gateway_pipelined, "a request behind a call waits its turn", Over::one_loop) {
  AppFixture f(target);
  f.upstream = &f.world->upstream();
  f.start();
  f.upstream->behave(Habit::echo, 5ms);
  HttpClient client = f.connect();
  for (int i = 0; i < 5; ++i) {
    client.send("GET", "/gateway");
    client.send("POST", "/echo", std::to_string(i));
  }
  for (int i = 0; i < 5; ++i) {
    CHECK(contains(client.receive().body, "upstream_us"));
    CHECK(client.receive().body == std::to_string(i));
  }
  f.finish();
}

CONFORMANCE(app_gateway_gone, "a client that goes in the middle of a call is no trouble",
            Over::one_loop) {
  AppFixture f(target);
  f.upstream = &f.world->upstream();
  f.start();
  f.upstream->behave(Habit::silent);
  for (const bool reset : {true, false}) {
    HttpClient client = f.connect();
    const std::size_t before = f.upstream->accepted();  // not open(): in 50 ms it is over again
    client.send("GET", "/gateway?timeout=50ms");
    REQUIRE(f.world->eventually([&] { return f.upstream->accepted() > before; }));
    reset ? client.peer().reset() : client.peer().close();
  }
  f.await("echolab_connections", 1);
  f.upstream->behave(Habit::echo);
  HttpClient client = f.connect();
  CHECK(client.ask("GET", "/gateway").status == 200);
  f.finish();
}

CONFORMANCE(app_jobs, "a job's waiters learn of its end, of a cancellation, and of a stop",
            Over::all) {
  AppFixture f(target);
  f.start();
  HttpClient client = f.connect();
  const auto start = [&](int ms) {
    return client.ask("POST", "/jobs", json{{"duration_ms", ms}}.dump()).field("Location");
  };
  const std::string wait = "Prefer: wait=20\r\n";
  std::vector<HttpClient> waiters;
  for (int i = 0; i < 10; ++i) waiters.push_back(f.connect());

  const std::string soon = start(50);
  for (HttpClient& waiter : waiters) waiter.send("GET", soon, "", wait);
  for (HttpClient& waiter : waiters) {
    CHECK(json::parse(waiter.receive().body).at("state") == "done");
  }

  const std::string late = start(3'600'000);
  for (HttpClient& waiter : waiters) waiter.send("GET", late, "", wait);
  f.await("echolab_jobs_waiters", waiters.size());
  CHECK(client.ask("DELETE", late).status == 200);
  for (HttpClient& waiter : waiters) {
    CHECK(json::parse(waiter.receive().body).at("state") == "cancelled");
  }

  const std::string never = start(3'600'000);
  for (HttpClient& waiter : waiters) waiter.send("GET", never, "", wait);
  f.await("echolab_jobs_waiters", waiters.size());
  for (std::size_t i = 0; i < 3; ++i) waiters[i].peer().close();
  for (std::size_t i = 3; i < 6; ++i) waiters[i].peer().reset();
  f.await("echolab_jobs_waiters", waiters.size() - 6);
  f.world->backend().stop(kPatience);
  for (std::size_t i = 6; i < waiters.size(); ++i) CHECK(waiters[i].receive().status == 503);
  f.finish();
}

// Waiting, cancelling and leaving at the same time: every waiter hears of it exactly once.
CONFORMANCE(app_jobs_race, "jobs cancelled while others begin to wait for them", Over::one_loop) {
  AppFixture f(target);
  f.start();
  const std::size_t rounds = scaled(50, 10);
  for (std::size_t round = 0; round < rounds; ++round) {
    HttpClient client = f.connect();
    const std::string job =
        client.ask("POST", "/jobs", R"({"duration_ms": 3600000})").field("Location");
    std::vector<HttpClient> waiters;
    for (int i = 0; i < 3; ++i) waiters.push_back(f.connect());
    for (HttpClient& waiter : waiters) waiter.send("GET", job, "", "Prefer: wait=60\r\n");
    client.send("DELETE", job);
    for (HttpClient& waiter : waiters) {
      REQUIRE(json::parse(waiter.receive().body).at("state") == "cancelled");
    }
    REQUIRE(client.receive().status == 200);
  }
  f.await("echolab_jobs_waiters", 0);
  f.finish();
}

CONFORMANCE(app_sqlite, "sessions in SQLite, many clients at once", Over::all) {
  // The worker is a thread with real time, which a simulated world does not wait for.
  if (target.simulated()) return;
  const harness::TemporaryFolder folder;
  AppFixture f(target);
  AppOptions options;
  options.sessions = AppOptions::Sessions::sqlite;
  options.session_db = folder.file("sessions.db");
  f.start(options);
  std::vector<HttpClient> clients;
  for (int i = 0; i < 10; ++i) clients.push_back(f.connect());
  const std::string session = clients[0].ask("POST", "/session").field("Location");
  const int rounds = static_cast<int>(scaled(20, 5));
  int highest = 0;
  for (int i = 0; i < rounds; ++i) {
    for (HttpClient& client : clients) client.send("POST", session + "/increment");
    for (HttpClient& client : clients) {
      const HttpReply reply = client.receive();
      REQUIRE(reply.status == 200);
      highest = std::max(highest, json::parse(reply.body).at("count").get<int>());
    }
  }
  CHECK(highest == rounds * 10);
  CHECK(json::parse(clients[0].ask("GET", session).body).at("count") == rounds * 10);
  f.finish();
}

}  // namespace
}  // namespace echolab::test
