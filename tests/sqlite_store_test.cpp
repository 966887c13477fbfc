// Sessions in SQLite: what is acknowledged is there, and what cannot be kept is refused.
#include "patterns/sqlite_store.hpp"

#include <sqlite3.h>

#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/exchange.hpp"
#include "tests/helpers.hpp"

namespace echolab::test {
namespace {

using namespace patterns;
using harness::TemporaryFolder;
using nlohmann::json;

const WallClock kClock{std::chrono::system_clock::time_point(1'000'000s), Time(1h)};

// Another process's connection, as far as SQLite can tell.
class Other {
 public:
  explicit Other(const std::string& file) {
    sqlite3* db = nullptr;
    REQUIRE(sqlite3_open(file.c_str(), &db) == SQLITE_OK);
    db_.reset(db);
  }
  void run(const char* sql) {
    CAPTURE(sql);
    REQUIRE(sqlite3_exec(db_.get(), sql, nullptr, nullptr, nullptr) == SQLITE_OK);
  }

 private:
  std::unique_ptr<sqlite3, int (*)(sqlite3*)> db_{nullptr, &sqlite3_close};
};

struct SqliteStoreFixture {
  explicit SqliteStoreFixture(const std::string& file, const SessionLimits& limits = {})
      : store(make_sqlite_sessions(limits, system_random(), file, kClock, posts, tickets)) {
    add_session_routes(router, *store);
  }
  // Asks, and is told the answer when the worker has posted it.
  Exchange::Result ask(const char* method, const std::string& target) {
    const auto now_or_later = client.ask(method, target);
    if (now_or_later.status != 0) return now_or_later;
    const PostLog::Entry entry = posts.take();
    REQUIRE(entry.to == std::vector<ConnId>{client.id()});
    return client.ring(entry.post);
  }
  std::string start() {
    const auto made = ask("POST", "/session");
    REQUIRE(made.status == 201);
    return made.field("Location");
  }
  std::uint64_t metric(const std::string& name) const {
    MetricsText text;
    store->add_metrics(text);
    const std::size_t at = text.text().find("\n" + name + " ");
    REQUIRE(at != std::string::npos);
    return std::stoull(text.text().substr(at + name.size() + 2));
  }

  Time now = kClock.steady;
  PostLog posts;
  Tickets tickets;
  std::unique_ptr<SessionStore> store;
  Router router;
  Exchange client{router, now};
};

int count_of(const Exchange::Result& r) {
  return json::parse(r.body).at("count");
}

TEST_CASE("sqlite - counts, and goes on after a restart") {
  const TemporaryFolder folder;
  const std::string file = folder.file("sessions.db");
  std::string session;
  {
    SqliteStoreFixture f(file);
    session = f.start();
    for (int n = 1; n <= 3; ++n) CHECK(count_of(f.ask("POST", session + "/increment")) == n);
    CHECK(f.ask("GET", "/session/nobody").status == 404);
    CHECK(f.ask("POST", "/session/nobody/increment").status == 404);
    CHECK(f.metric("echolab_sessions") == 1);
  }
  SqliteStoreFixture f(file);
  CHECK(f.metric("echolab_sessions") == 0);  // told with the first answer
  CHECK(count_of(f.ask("GET", session)) == 3);
  CHECK(count_of(f.ask("POST", session + "/increment")) == 4);
  CHECK(f.metric("echolab_sessions") == 1);
}

TEST_CASE("sqlite - another's bell is not an answer") {
  const TemporaryFolder folder;
  SqliteStoreFixture f(folder.file("sessions.db"));
  CHECK(f.client.ask("POST", "/session").status == 0);
  CHECK(f.client.ring({Hub::kTicket | 12345, nullptr}).status == 0);
  CHECK(f.client.ring({17, nullptr}).status == 0);
  CHECK(f.client.ring(f.posts.take().post).status == 201);
}

TEST_CASE("sqlite - busy: 503, nothing is counted, and it goes on afterwards") {
  const TemporaryFolder folder;
  const std::string file = folder.file("sessions.db");
  SessionLimits limits;
  limits.busy = 1ms;
  SqliteStoreFixture f(file, limits);
  const std::string session = f.start();
  CHECK(count_of(f.ask("POST", session + "/increment")) == 1);
  {
    Other other(file);
    other.run("BEGIN IMMEDIATE");
    const auto refused = f.ask("POST", session + "/increment");
    CHECK(refused.status == 503);
    CHECK(refused.field("Retry-After") == "1");
    CHECK(f.ask("POST", "/session").status == 503);
    CHECK(count_of(f.ask("GET", session)) == 1);  // readers are not kept out
    CHECK(f.metric("echolab_session_transactions_failed_total") == 2);
    other.run("ROLLBACK");
  }
  CHECK(count_of(f.ask("POST", session + "/increment")) == 2);
}

TEST_CASE("sqlite - full: 503, and what was acknowledged is there") {
  const TemporaryFolder folder;
  const std::string file = folder.file("sessions.db");
  SessionLimits limits;
  limits.file = 32 * 1024;
  std::vector<std::string> kept;
  {
    SqliteStoreFixture f(file, limits);
    // Ids are random, so that one may still fit into a page where another did not.
    for (int refused = 0; refused < 20;) {
      const auto made = f.ask("POST", "/session");
      if (made.status == 503) {
        ++refused;
        continue;
      }
      REQUIRE(made.status == 201);
      kept.push_back(made.field("Location"));
      REQUIRE(count_of(f.ask("POST", kept.back() + "/increment")) == 1);
      REQUIRE(kept.size() < 10'000);
    }
    REQUIRE(kept.size() > 100);
    CHECK(count_of(f.ask("POST", kept[0] + "/increment")) == 2);  // counting needs no room
  }
  SqliteStoreFixture f(file);
  CHECK(count_of(f.ask("GET", kept[0])) == 2);
  for (std::size_t i = 1; i < kept.size(); ++i) REQUIRE(count_of(f.ask("GET", kept[i])) == 1);
  CHECK(f.metric("echolab_sessions") == kept.size());
  CHECK(f.ask("POST", "/session").status == 201);
}

TEST_CASE("sqlite - so many sessions, until some have expired") {
  const TemporaryFolder folder;
  SessionLimits limits;
  limits.sessions = 2;
  limits.ttl = 100s;
  SqliteStoreFixture f(folder.file("sessions.db"), limits);
  const std::string first = f.start();
  f.now += 50s;
  const std::string second = f.start();
  CHECK(f.ask("POST", "/session").status == 503);
  f.now += 50s;
  CHECK(f.ask("GET", first).status == 404);
  CHECK(f.ask("POST", first + "/increment").status == 404);
  f.now += 20s;  // a minute since it has looked for expired ones
  CHECK(f.ask("POST", "/session").status == 201);
  CHECK(f.ask("GET", second).status == 200);
  CHECK(f.metric("echolab_sessions") == 2);
}

TEST_CASE("sqlite - the queue is bounded, and what waits in it shares a transaction") {
  const TemporaryFolder folder;
  const std::string file = folder.file("sessions.db");
  SessionLimits limits;
  limits.queue = 8;
  limits.busy = kPatience;
  SqliteStoreFixture f(file, limits);
  const std::string session = f.start();

  // While another holds the store up, the worker waits with one batch and the rest queues up.
  Other other(file);
  other.run("BEGIN IMMEDIATE");
  std::vector<std::unique_ptr<Exchange>> clients;
  std::map<std::uint32_t, Exchange*> waiting;
  std::size_t refused = 0;
  for (std::uint32_t i = 0; i < 100; ++i) {
    clients.push_back(std::make_unique<Exchange>(f.router, f.now, i));
    const auto answer = clients.back()->ask("POST", session + "/increment");
    if (answer.status == 0) {
      waiting[i] = clients.back().get();
    } else {
      CHECK(answer.status == 503);
      ++refused;
    }
  }
  CHECK(waiting.size() >= 8);
  CHECK(refused > 0);
  CHECK(waiting.size() + refused == 100);
  const std::uint64_t before = f.metric("echolab_session_transactions_total");
  other.run("ROLLBACK");

  std::vector<int> counts;
  for (std::size_t i = 0; i < waiting.size(); ++i) {
    const PostLog::Entry entry = f.posts.take();
    REQUIRE(entry.to.size() == 1);
    const auto answer = waiting.at(entry.to[0].slot)->ring(entry.post);
    REQUIRE(answer.status == 200);
    counts.push_back(count_of(answer));
  }
  for (std::size_t i = 0; i < counts.size(); ++i) CHECK(counts[i] == static_cast<int>(i + 1));
  CHECK(f.metric("echolab_session_transactions_total") - before < waiting.size());
}

TEST_CASE("sqlite - what is queued at the end is answered, and clients that left are no trouble") {
  const TemporaryFolder folder;
  const std::string file = folder.file("sessions.db");
  PostLog posts;
  {
    Tickets tickets;
    const auto store = make_sqlite_sessions({}, system_random(), file, kClock, posts, tickets);
    Router router;
    add_session_routes(router, *store);
    const Time now = kClock.steady;
    for (std::uint32_t i = 0; i < 50; ++i) {
      Exchange client(router, now, i);
      CHECK(client.ask("POST", "/session").status == 0);
      client.leave();
    }
  }
  CHECK(posts.size() == 50);
  SqliteStoreFixture f(file);
  f.start();
  CHECK(f.metric("echolab_sessions") == 51);
}

TEST_CASE("sqlite - many threads lose no increment") {
  const TemporaryFolder folder;
  SqliteStoreFixture f(folder.file("sessions.db"));
  const std::string session = f.start();
  constexpr int kThreads = 4;
  constexpr int kEach = 50;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&] {
        for (std::uint32_t i = 0; i < kEach; ++i) {
          Exchange(f.router, f.now, i).ask("POST", session + "/increment");
        }
      });
    }
  }
  for (int i = 0; i < kThreads * kEach; ++i) f.posts.take();
  CHECK(count_of(f.ask("GET", session)) == kThreads * kEach);
}

TEST_CASE("sqlite - a file that cannot be used is an error at the start") {
  const TemporaryFolder folder;
  const auto open = [&](const std::string& file) {
    return harness::error_of([&] { const SqliteStoreFixture f(file); });
  };
  const std::string missing = folder.file("no/such/folder.db");
  CHECK(open(missing).find(missing) != std::string::npos);

  const std::string text = folder.file("text");
  std::ofstream(text) << "this is not a database, and long enough to be seen as none\n";
  CHECK(open(text).find("not a database") != std::string::npos);

  const std::string foreign = folder.file("foreign.db");
  Other(foreign).run("CREATE TABLE precious (x)");
  CHECK(open(foreign).find("something else") != std::string::npos);
  Other(foreign).run("SELECT * FROM precious");
  CHECK(open(folder.file("fresh.db")).empty());
}

}  // namespace
}  // namespace echolab::test
