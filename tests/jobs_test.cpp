// Jobs by polling and by long polling, in virtual time.
#include "patterns/jobs.hpp"

#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/exchange.hpp"

namespace echolab::test {
namespace {

using namespace patterns;
using nlohmann::json;

struct JobsFixture {
  explicit JobsFixture(const JobLimits& limits = {}, RandomSource random = counting_random())
      : jobs(posts, tickets, std::move(random), limits) {
    jobs.add_routes(router);
  }
  Exchange client(std::uint32_t slot = 0) { return {router, now, slot}; }
  // The handle of a new job.
  std::string start(int ms) {
    const auto made = client().ask("POST", "/jobs", json{{"duration_ms", ms}}.dump());
    REQUIRE(made.status == 202);
    return json::parse(made.body).at("id");
  }
  std::uint64_t metric(const std::string& name) const {
    MetricsText text;
    jobs.add_metrics(text);
    const std::size_t at = text.text().find("\n" + name + " ");
    REQUIRE(at != std::string::npos);
    return std::stoull(text.text().substr(at + name.size() + 2));
  }

  Time now{1h};
  PostLog posts;
  Tickets tickets;
  Router router;
  Jobs jobs;
};

const std::string kFirst = "01010101010101010101010101010101";

std::string state_of(const Exchange::Result& r) {
  return json::parse(r.body).at("state");
}

TEST_CASE("jobs - a job is accepted, polled and done") {
  JobsFixture f;
  auto client = f.client();
  const auto made = client.ask("POST", "/jobs", R"({"duration_ms": 2500})");
  CHECK(made.status == 202);
  CHECK(made.field("Location") == "/jobs/" + kFirst);
  CHECK(made.field("Retry-After") == "3");  // rounded up
  CHECK(made.body == R"({"id":")" + kFirst + R"(","state":"running"})");

  f.now += 2400ms;
  const auto running = client.ask("GET", "/jobs/" + kFirst);
  CHECK(running.status == 200);
  CHECK(running.body == made.body);
  CHECK(running.field("ETag") == "\"running\"");
  CHECK(running.field("Retry-After") == "1");  // at least

  f.now += 100ms;
  const auto done = client.ask("GET", "/jobs/" + kFirst);
  CHECK(done.status == 200);
  CHECK(json::parse(done.body) == json{{"id", kFirst}, {"state", "done"}, {"duration_ms", 2500.0}});
  CHECK(done.field("ETag") == "\"done\"");
  CHECK(done.field("Retry-After").empty());
}

TEST_CASE("jobs - a state that the client knows is 304") {
  JobsFixture f;
  const std::string id = f.start(1000);
  auto client = f.client();
  const auto conditional = [&](const char* tags) {
    return client.ask("GET", "/jobs/" + id, "", {{"If-None-Match", tags}});
  };
  const auto same = conditional("\"running\"");
  CHECK(same.status == 304);
  CHECK(same.body.empty());
  CHECK(same.field("ETag") == "\"running\"");
  CHECK(conditional("W/\"running\"").status == 304);
  CHECK(conditional("\"done\" ,\t\"running\"").status == 304);
  CHECK(conditional("*").status == 304);
  CHECK(conditional("\"done\"").status == 200);
  CHECK(conditional("running").status == 200);
  CHECK(conditional("").status == 200);
  f.now += 1s;
  CHECK(conditional("\"running\"").status == 200);
  CHECK(conditional("\"done\"").status == 304);
}

TEST_CASE("jobs - a random duration comes from the source and is capped") {
  std::uint64_t bits = 0;
  JobLimits limits;
  limits.longest = 10s;
  JobsFixture f(limits, [&](Input bytes) {
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      bytes[i] = static_cast<std::byte>(bits >> (8 * (i % 8)) & 255);
    }
  });
  auto client = f.client();
  const auto duration = [&](std::uint64_t random) {
    bits = random;
    const auto made = client.ask("POST", "/jobs", R"({"distribution": "exp", "mean_ms": 1000})");
    REQUIRE(made.status == 202);
    const std::string id = json::parse(made.body).at("id");
    f.now += 10s;
    return json::parse(client.ask("GET", "/jobs/" + id).body).at("duration_ms").get<double>();
  };
  CHECK(duration(1ULL << 63) == Approx(1000 * std::log(2)).epsilon(1e-6));
  CHECK(duration(~0ULL) == Approx(0).margin(1e-6));
  CHECK(duration(0) == 10'000);  // 36 s, cut
}

TEST_CASE("jobs - bad requests get a reason") {
  JobsFixture f;
  auto client = f.client();
  const auto post = [&](const char* body) { return client.ask("POST", "/jobs", body).status; };
  for (const char* body : {"", "{", "[]", "3", "\"x\"", "{\"duration_ms\": 1"}) {
    CAPTURE(body);
    CHECK(post(body) == 400);
  }
  for (const char* body :
       {"{}", R"({"duration_ms": -1})", R"({"duration_ms": "5"})", R"({"duration_ms": null})",
        R"({"duration_ms": 1e300})", R"({"duration_ms": 3600001})", R"({"distribution": "exp"})",
        R"({"distribution": "uniform", "mean_ms": 3})", R"({"distribution": 1, "mean_ms": 3})",
        R"({"distribution": "exp", "mean_ms": -3})",
        R"({"distribution": "exp", "mean_ms": 3, "duration_ms": 3})"}) {
    CAPTURE(body);
    CHECK(post(body) == 422);
  }
  CHECK(post(R"({"duration_ms": 3600000})") == 202);
  CHECK(post(R"({"duration_ms": 0})") == 202);
  CHECK(f.metric("echolab_jobs") == 2);
  for (const char* method : {"GET", "DELETE"}) {
    CHECK(client.ask(method, "/jobs/nobody").status == 404);
  }
}

TEST_CASE("jobs - Prefer: wait parks until the job is done") {
  JobsFixture f;
  const std::string id = f.start(2500);
  auto client = f.client();
  CHECK(client.ask("GET", "/jobs/" + id, "", {{"Prefer", "wait=10"}}).status == 0);
  CHECK(client.wakes_at() == f.now + 2500ms);
  CHECK(f.metric("echolab_jobs_waiters") == 1);
  f.now += 2500ms;
  const auto done = client.deadline();
  CHECK(done.status == 200);
  CHECK(state_of(done) == "done");
  CHECK(done.field("Preference-Applied") == "wait=10");
  CHECK(f.metric("echolab_jobs_waiters") == 0);
  CHECK(f.posts.size() == 0);
}

TEST_CASE("jobs - a wait that runs out answers with the state as it is") {
  JobsFixture f;
  const std::string id = f.start(60'000);
  auto client = f.client();
  CHECK(client.ask("GET", "/jobs/" + id, "", {{"Prefer", "wait=10"}}).status == 0);
  CHECK(client.wakes_at() == f.now + 10s);
  f.now += 9999ms;
  CHECK(client.deadline().status == 0);  // early: it waits on
  CHECK(client.wakes_at() == f.now + 1ms);
  f.now += 1ms;
  const auto running = client.deadline();
  CHECK(running.status == 200);
  CHECK(state_of(running) == "running");
  CHECK(running.field("Preference-Applied") == "wait=10");
  CHECK(running.field("Retry-After") == "50");

  const std::vector<Field> known{{"Prefer", "wait=10"}, {"If-None-Match", "\"running\""}};
  CHECK(client.ask("GET", "/jobs/" + id, "", known).status == 0);
  f.now += 10s;
  CHECK(client.deadline().status == 304);
}

TEST_CASE("jobs - how a preference may be written (RFC 7240)") {
  JobLimits limits;
  limits.wait = 20s;
  JobsFixture f(limits);
  const std::string id = f.start(3'600'000);
  const auto applied = [&](std::vector<Field> fields) -> std::string {
    auto client = f.client();
    if (client.ask("GET", "/jobs/" + id, "", fields).status != 0) return "at once";
    const Duration wait = client.wakes_at() - f.now;
    f.now = client.wakes_at();
    const std::string said = client.deadline().field("Preference-Applied");
    CHECK(said == "wait=" + std::to_string(std::chrono::round<std::chrono::seconds>(wait).count()));
    return said;
  };
  CHECK(applied({{"Prefer", "wait=5"}}) == "wait=5");
  CHECK(applied({{"prefer", "respond-async, WAIT = \"7\"; x=y"}}) == "wait=7");
  CHECK(applied({{"Prefer", "foo"}, {"Prefer", "wait=6, wait=9"}}) == "wait=6");
  CHECK(applied({{"Prefer", "wait=100000"}}) == "wait=20");  // no longer than the server likes
  for (const char* none : {"", "wait", "wait=", "wait=-1", "wait=1.5", "wait=x", "waits=5",
                           "wait=99999999999999999999", ",", "respond-async", "x; wait=5"}) {
    CAPTURE(none);
    CHECK(applied({{"Prefer", none}}) == "at once");
  }
  auto client = f.client();
  const auto zero = client.ask("GET", "/jobs/" + id, "", {{"Prefer", "wait=0"}});
  CHECK(zero.status == 200);
  CHECK(zero.field("Preference-Applied") == "wait=0");
}

TEST_CASE("jobs - cancelling rings all who wait, once") {
  JobsFixture f;
  const std::string id = f.start(5000);
  const std::string other = f.start(5000);
  auto first = f.client(1);
  auto second = f.client(2);
  auto third = f.client(3);
  first.ask("GET", "/jobs/" + id, "", {{"Prefer", "wait=10"}});
  second.ask("GET", "/jobs/" + id, "", {{"Prefer", "wait=10"}});
  third.ask("GET", "/jobs/" + other, "", {{"Prefer", "wait=10"}});

  auto client = f.client(4);
  f.now += 1s;
  const auto cancelled = client.ask("DELETE", "/jobs/" + id);
  CHECK(cancelled.status == 200);
  CHECK(state_of(cancelled) == "cancelled");
  REQUIRE(f.posts.size() == 1);
  const PostLog::Entry rung = f.posts.take();
  CHECK(rung.to == std::vector<ConnId>{first.id(), second.id()});
  CHECK((rung.post.topic & Hub::kTicket) != 0);

  for (Exchange* waiter : {&first, &second}) {
    const auto told = waiter->ring(rung.post);
    CHECK(told.status == 200);
    CHECK(state_of(told) == "cancelled");
    CHECK(told.field("ETag") == "\"cancelled\"");
    CHECK(told.field("Preference-Applied") == "wait=10");
  }
  CHECK(third.ring(rung.post).status == 0);  // another's bell
  CHECK(f.metric("echolab_jobs_waiters") == 1);

  CHECK(client.ask("DELETE", "/jobs/" + id).body == cancelled.body);
  CHECK(f.posts.size() == 0);
  f.now += 10s;
  CHECK(state_of(client.ask("GET", "/jobs/" + id)) == "cancelled");
  CHECK(state_of(client.ask("DELETE", "/jobs/" + other)) == "done");
  CHECK(f.metric("echolab_jobs_cancelled_total") == 1);
}

TEST_CASE("jobs - a client that goes frees its waiter at once") {
  JobLimits limits;
  limits.waiters = 1;
  JobsFixture f(limits);
  const std::string id = f.start(5000);
  auto first = f.client(1);
  auto second = f.client(2);
  const std::vector<Field> wait{{"Prefer", "wait=10"}};
  CHECK(first.ask("GET", "/jobs/" + id, "", wait).status == 0);
  const auto refused = second.ask("GET", "/jobs/" + id, "", wait);
  CHECK(refused.status == 503);
  CHECK(refused.field("Retry-After") == "1");
  CHECK(second.ask("GET", "/jobs/" + id).status == 200);  // without waiting it may
  first.leave();
  CHECK(f.metric("echolab_jobs_waiters") == 0);
  CHECK(second.ask("GET", "/jobs/" + id, "", wait).status == 0);
  CHECK(f.client().ask("DELETE", "/jobs/" + id).status == 200);
  CHECK(f.posts.take().to == std::vector<ConnId>{second.id()});
}

TEST_CASE("jobs - a client that closes its half is not waited for") {
  JobsFixture f;
  const std::string id = f.start(5000);
  auto client = f.client();
  CHECK(client.ask("GET", "/jobs/" + id, "", {{"Prefer", "wait=10"}}).status == 0);
  const auto told = client.eof();
  CHECK(told.status == 200);
  CHECK(state_of(told) == "running");
  CHECK(f.metric("echolab_jobs_waiters") == 0);
}

TEST_CASE("jobs - an idempotency key gives the same job") {
  JobLimits limits;
  limits.keep = 5s;
  JobsFixture f(limits);
  auto client = f.client();
  const auto post = [&](const char* body, const std::string& key) {
    return client.ask("POST", "/jobs", body, {{"Idempotency-Key", key}});
  };
  const char* const body = R"({"distribution": "exp", "mean_ms": 1000})";
  const auto first = post(body, "\"a\"");
  const auto again = post(R"({"mean_ms": 1000.0, "distribution": "exp"})", "\"a\"");
  CHECK(again.status == 202);
  CHECK(again.field("Location") == first.field("Location"));
  CHECK(again.body == first.body);
  CHECK(post(body, "\"b\"").field("Location") != first.field("Location"));
  CHECK(post(R"({"distribution": "exp", "mean_ms": 1001})", "\"a\"").status == 422);
  CHECK(post(R"({"duration_ms": 1000})", "\"a\"").status == 422);
  CHECK(post(body, "").status == 400);
  CHECK(post(body, std::string(256, 'k')).status == 400);
  CHECK(post(body, std::string(255, 'k')).status == 202);
  CHECK(f.metric("echolab_jobs_created_total") == 3);
  f.now += 1h;  // the job is forgotten, and its key with it
  const auto anew = post(body, "\"a\"");
  CHECK(anew.status == 202);
  CHECK(anew.field("Location") != first.field("Location"));
}

TEST_CASE("jobs - an ended job is kept, then gone, then unknown") {
  JobLimits limits;
  limits.keep = 10s;
  limits.gone_for = 20s;
  limits.gone = 2;
  JobsFixture f(limits);
  const std::string id = f.start(1000);
  auto client = f.client();
  const auto status = [&](const std::string& job) {
    return client.ask("GET", "/jobs/" + job).status;
  };
  f.now += 11s - 1ms;
  CHECK(status(id) == 200);
  f.now += 1ms;
  CHECK(status(id) == 410);
  CHECK(client.ask("DELETE", "/jobs/" + id).status == 410);
  f.now += 20s - 1ms;
  CHECK(status(id) == 410);
  f.now += 1ms;
  CHECK(status(id) == 404);

  const std::vector<std::string> many{f.start(0), f.start(0), f.start(0)};
  f.now += 10s;
  CHECK(status(many[0]) == 404);  // more are gone than are remembered
  CHECK(status(many[1]) == 410);
  CHECK(status(many[2]) == 410);
  CHECK(f.metric("echolab_jobs") == 0);
}

TEST_CASE("jobs - a cancelled job is kept from then on") {
  JobLimits limits;
  limits.keep = 10s;
  JobsFixture f(limits);
  const std::string id = f.start(3'600'000);
  auto client = f.client();
  client.ask("DELETE", "/jobs/" + id);
  f.now += 10s - 1ms;
  CHECK(client.ask("GET", "/jobs/" + id).status == 200);
  f.now += 1ms;
  CHECK(client.ask("GET", "/jobs/" + id).status == 410);
}

TEST_CASE("jobs - the table is bounded and says when there is room") {
  JobLimits limits;
  limits.jobs = 2;
  limits.keep = 10s;
  JobsFixture f(limits);
  f.start(5000);
  f.start(1000);
  auto client = f.client();
  const auto full = client.ask("POST", "/jobs", R"({"duration_ms": 1})");
  CHECK(full.status == 429);
  CHECK(full.field("Retry-After") == "11");
  f.now += 11s;
  CHECK(client.ask("POST", "/jobs", R"({"duration_ms": 1})").status == 202);
}

TEST_CASE("jobs - the system's handles differ") {
  JobsFixture f({}, system_random());
  const std::string a = f.start(1);
  const std::string b = f.start(1);
  CHECK(a != b);
  CHECK(a.size() == 32);
  CHECK(a.find_first_not_of("0123456789abcdef") == std::string::npos);
}

}  // namespace
}  // namespace echolab::test
