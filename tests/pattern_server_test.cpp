// The pattern-server program over every backend: what it serves, how it stops, what survives it.
#include <fmt/format.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "backends/sockets.hpp"
#include "tests/helpers.hpp"
#include "tests/http_client.hpp"
#include "tests/program.hpp"

namespace echolab::test {
namespace {

using harness::contains;
using harness::slurp;
using harness::TemporaryFolder;
using nlohmann::json;

using Arguments = std::vector<std::string>;

// A server program that has said its port.
class Server {
 public:
  Server(const char* name, const Target& target, const Arguments& more = {})
      : program_(command(name, target, more)),
        port_(static_cast<std::uint16_t>(std::stoul(program_.read_line()))) {}
  HttpClient connect() { return HttpClient(connect_tcp("127.0.0.1", port_)); }
  [[nodiscard]] std::string address() const { return fmt::format("127.0.0.1:{}", port_); }
  Program& program() { return program_; }
  void stop() {
    program_.signal(SIGTERM);
    CHECK(program_.wait() == 0);
  }
  void kill() {
    program_.signal(SIGKILL);
    CHECK(program_.wait() == -SIGKILL);
  }

 private:
  static Arguments command(const char* name, const Target& target, const Arguments& more) {
    Arguments all{test::program(name),
                  "--backend",
                  target.spec,
                  "--listen",
                  "127.0.0.1:0",
                  "--threads",
                  std::to_string(target.loops)};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }

  Program program_;
  std::uint16_t port_;
};

constexpr Target kEpoll{"epoll", "epoll", 1};

std::uint64_t metric(HttpClient& client, const std::string& name) {
  const HttpReply reply = client.ask("GET", "/metrics");
  REQUIRE(reply.status == 200);
  const std::size_t at = reply.body.find("\n" + name + " ");
  INFO(name << " in " << reply.body);
  REQUIRE(at != std::string::npos);
  return std::stoull(reply.body.substr(at + name.size() + 2));
}

void await_metric(HttpClient& client, const std::string& name, std::uint64_t value) {
  const Time until = std::chrono::steady_clock::now() + kPatience;
  while (metric(client, name) != value) {
    if (std::chrono::steady_clock::now() > until) FAIL(name << " is never " << value);
    usleep(1000);
  }
}

CONFORMANCE(pattern_requests, "pattern-server answers requests", Over::all) {
  if (target.simulated()) return;
  Server server("pattern-server", target);
  HttpClient client = server.connect();
  const HttpReply index = client.ask("GET", "/");
  CHECK(index.status == 200);
  for (const char* served : {"/plaintext", "/echo", "/metrics", "/work", "/gateway", "/jobs/{id}",
                             "/session/{id}/increment"}) {
    CHECK(contains(index.body, served));
  }
  const HttpReply plain = client.ask("GET", "/plaintext");
  CHECK(plain.status == 200);
  CHECK(plain.body == "Hello, World!\n");
  const std::string body(100'000, 'e');
  const HttpReply echo = client.ask("POST", "/echo", body, "Content-Type: text/x-mine\r\n");
  CHECK(echo.status == 200);
  CHECK(echo.body == body);
  CHECK(echo.field("Content-Type") == "text/x-mine");
  const Time before = std::chrono::steady_clock::now();
  CHECK(client.ask("GET", "/work?cpu=2ms&block=3ms").status == 200);
  CHECK(std::chrono::steady_clock::now() - before >= 5ms);
  CHECK(client.ask("GET", "/work?cpu=1h").status == 400);
  CHECK(client.ask("GET", "/work?block=2s").status == 400);
  CHECK(client.ask("GET", "/gateway").status == 503);
  CHECK(client.ask("GET", "/nothing").status == 404);
  CHECK(client.ask("DELETE", "/plaintext").status == 405);
  server.program().signal(SIGTERM);
  CHECK(client.peer().read_all().empty());
  client.peer().close();
  CHECK(server.program().wait() == 0);
}

CONFORMANCE(pattern_jobs, "pattern-server parks clients on jobs and rings them", Over::all) {
  if (target.simulated()) return;
  Server server("pattern-server", target);
  HttpClient client = server.connect();
  HttpClient waiter = server.connect();
  const std::string_view wait = "Prefer: wait=25\r\n";

  const std::string soon = client.ask("POST", "/jobs", R"({"duration_ms": 30})").field("Location");
  const HttpReply done = waiter.ask("GET", soon, "", wait);
  CHECK(done.status == 200);
  CHECK(json::parse(done.body).at("state") == "done");
  CHECK(done.field("Preference-Applied") == "wait=25");

  const std::string late =
      client.ask("POST", "/jobs", R"({"duration_ms": 3600000})").field("Location");
  waiter.send("GET", late, "", wait);
  await_metric(client, "echolab_jobs_waiters", 1);
  CHECK(client.ask("DELETE", late).status == 200);
  CHECK(json::parse(waiter.receive().body).at("state") == "cancelled");

  // A client that goes is not waited for, however it goes.
  const std::string never =
      client.ask("POST", "/jobs", R"({"duration_ms": 3600000})").field("Location");
  for (const bool reset : {true, false}) {
    HttpClient gone = server.connect();
    gone.send("GET", never, "", wait);
    await_metric(client, "echolab_jobs_waiters", 1);
    reset ? gone.peer().reset() : gone.peer().close();
    await_metric(client, "echolab_jobs_waiters", 0);
  }
  // Nor is one that is parked when the server stops.
  waiter.send("GET", never, "", wait);
  await_metric(client, "echolab_jobs_waiters", 1);
  client.peer().close();
  server.program().signal(SIGTERM);
  CHECK(waiter.receive().status == 503);
  waiter.peer().close();
  CHECK(server.program().wait() == 0);
}

// All that a store must do, over a server that dies without warning in the middle.
void sessions_survive(const Target& target, const Arguments& arguments, bool survives) {
  std::string session;
  int acknowledged = 0;
  const auto count = [&](HttpClient& client) {
    const HttpReply reply = client.ask("POST", session + "/increment");
    REQUIRE(reply.status == 200);
    const json body = json::parse(reply.body);
    acknowledged = body.at("count");
    session = "/session/" + body.at("id").get<std::string>();  // a token is a new one each time
  };
  {
    Server server("pattern-server", target, arguments);
    HttpClient client = server.connect();
    const HttpReply made = client.ask("POST", "/session");
    REQUIRE(made.status == 201);
    session = made.field("Location");
    for (int i = 1; i <= 10; ++i) {
      count(client);
      CHECK(acknowledged == i);
    }
    server.kill();
  }
  Server server("pattern-server", target, arguments);
  HttpClient client = server.connect();
  const HttpReply after = client.ask("GET", session);
  if (survives) {
    REQUIRE(after.status == 200);
    CHECK(json::parse(after.body).at("count") == 10);
    count(client);
    CHECK(acknowledged == 11);
  } else {
    CHECK((after.status == 404 || after.status == 401));
  }
  client.peer().close();
  server.stop();
}

CONFORMANCE(sessions_memory, "sessions in memory are forgotten by kill -9", Over::one_loop) {
  if (!target.simulated()) sessions_survive(target, {"--sessions", "memory"}, false);
}

CONFORMANCE(sessions_token, "sessions in tokens outlive kill -9", Over::one_loop) {
  if (target.simulated()) return;
  const TemporaryFolder folder;
  const std::string key = folder.file("key");
  sessions_survive(target, {"--sessions", "token", "--token-key-file", key}, true);
  CHECK(slurp(key).size() == 32);
  struct stat status {};
  REQUIRE(::stat(key.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
  std::size_t files = 0;
  for ([[maybe_unused]] const auto& file : std::filesystem::directory_iterator(folder.path())) {
    ++files;
  }
  CHECK(files == 1);
}

CONFORMANCE(sessions_sqlite, "sessions in SQLite outlive kill -9", Over::all) {
  if (target.simulated()) return;
  const TemporaryFolder folder;
  sessions_survive(target, {"--sessions", "sqlite", "--session-db", folder.file("sessions.db")},
                   true);
}

TEST_CASE("pattern-server - kill -9 in full flight loses no acknowledged increment") {
  const TemporaryFolder folder;
  const Arguments arguments{"--sessions", "sqlite", "--session-db", folder.file("sessions.db")};
  constexpr std::size_t kClients = 8;
  std::vector<std::string> sessions;
  std::vector<int> acknowledged(kClients, 0);
  {
    Server server("pattern-server", kEpoll, arguments);
    std::vector<HttpClient> clients;
    for (std::size_t i = 0; i < kClients; ++i) {
      clients.push_back(server.connect());
      sessions.push_back(clients[i].ask("POST", "/session").field("Location"));
    }
    // All have a request in flight all the time; the server dies somewhere in between.
    for (std::size_t i = 0; i < kClients; ++i) clients[i].send("POST", sessions[i] + "/increment");
    for (int round = 0; round < 20; ++round) {
      for (std::size_t i = 0; i < kClients; ++i) {
        acknowledged[i] = json::parse(clients[i].receive().body).at("count");
        clients[i].send("POST", sessions[i] + "/increment");
      }
    }
    server.kill();
  }
  Server server("pattern-server", kEpoll, arguments);
  HttpClient client = server.connect();
  for (std::size_t i = 0; i < kClients; ++i) {
    const int count = json::parse(client.ask("GET", sessions[i]).body).at("count");
    CHECK(acknowledged[i] == 20);
    CHECK(count >= 20);
    CHECK(count <= 21);  // one more was in flight
  }
  client.peer().close();
  server.stop();
}

TEST_CASE("pattern-server - tokens without a key file end with the server, and it says so") {
  Server server("pattern-server", kEpoll, {"--sessions", "token"});
  HttpClient client = server.connect();
  CHECK(client.ask("POST", "/session").status == 201);
  const HttpReply refused = client.ask("GET", "/session/forged");
  CHECK(refused.status == 401);
  CHECK(!refused.field("WWW-Authenticate").empty());
  client.peer().close();
  server.stop();
  CHECK(one_line(server.program().err()));
  CHECK(contains(server.program().err(), "--token-key-file"));
}

TEST_CASE("pattern-server - key files that are no good are errors at the start") {
  const TemporaryFolder folder;
  const auto start = [](const std::string& key) {
    return run("pattern-server",
               {"--listen", "127.0.0.1:0", "--sessions", "token", "--token-key-file", key});
  };
  const std::string key = folder.file("key");
  std::ofstream(key) << std::string(31, 'k');
  std::filesystem::permissions(key, std::filesystem::perms(0600));
  CHECK(start(key).code == 1);
  CHECK(contains(start(key).err, "32 bytes"));
  std::ofstream(key) << std::string(32, 'k');
  std::filesystem::permissions(key, std::filesystem::perms(0640));
  const Outcome open = start(key);
  CHECK(open.code == 1);
  CHECK(open.out.empty());
  CHECK(one_line(open.err));
  CHECK(contains(open.err, "chmod 600"));
  CHECK(start(folder.file("no/such/folder")).code == 1);
}

TEST_CASE("pattern-server - connections beyond the limit get 503 and the end") {
  Server server("pattern-server", kEpoll, {"--max-connections", "2"});
  HttpClient first = server.connect();
  CHECK(first.ask("GET", "/plaintext").status == 200);
  {
    HttpClient second = server.connect();
    CHECK(second.ask("GET", "/plaintext").status == 200);
    HttpClient third = server.connect();
    const HttpReply refused = third.receive();
    CHECK(refused.status == 503);
    CHECK(refused.body == "too many connections\n");
    CHECK(refused.field("Connection") == "close");
    CHECK(third.peer().read_end() == Peer::State::eof);
    CHECK(metric(first, "echolab_connections") == 2);
    CHECK(metric(first, "echolab_connections_turned_away_total") == 1);
  }
  await_metric(first, "echolab_connections", 1);
  CHECK(server.connect().ask("GET", "/plaintext").status == 200);
  first.peer().close();
  server.stop();
}

TEST_CASE("pattern-server - metrics are in Prometheus' format") {
  Server server("pattern-server", kEpoll);
  HttpClient client = server.connect();
  const HttpReply reply = client.ask("GET", "/metrics");
  CHECK(reply.status == 200);
  CHECK(contains(reply.field("Content-Type"), "version=0.0.4"));
  std::set<std::string> announced;
  std::istringstream lines(reply.body);
  std::string name;
  for (std::string line; std::getline(lines, line);) {
    CAPTURE(line);
    std::istringstream words(line);
    std::string hash;
    std::string kind;
    if (line.starts_with("# HELP ")) {
      words >> hash >> kind >> name;
      CHECK(announced.insert(name).second);  // once a metric
    } else if (line.starts_with("# TYPE ")) {
      std::string type;
      words >> hash >> kind >> kind >> type;
      CHECK(kind == name);
      CHECK((type == "counter") == name.ends_with("_total"));
    } else {
      CHECK((line.starts_with(name + " ") || line.starts_with(name + "{")));
      CHECK(line.find_last_not_of("0123456789") == line.rfind(' '));
    }
  }
  CHECK(reply.body.back() == '\n');
  for (std::size_t i = 0; i < kCounts; ++i) {
    CHECK(contains(reply.body, fmt::format("echolab_backend_total{{count=\"{}\"}} ",
                                           name_of(static_cast<Count>(i)))));
  }
  CHECK(contains(reply.body, "echolab_backend_total{count=\"accepted\"} 1\n"));
  client.peer().close();
  server.stop();
}

TEST_CASE("pattern-server - options are limits") {
  Server server("pattern-server", kEpoll,
                {"--max-body", "1KiB", "--max-target", "64", "--max-jobs", "1", "--max-job-time",
                 "1s", "--max-job-wait", "2s", "--max-work", "10ms", "--max-sessions", "1"});
  const auto status = [&](const char* method, const std::string& target, const std::string& body) {
    return server.connect().ask(method, target, body).status;
  };
  CHECK(status("POST", "/echo", std::string(1024, 'x')) == 200);
  CHECK(status("POST", "/echo", std::string(1025, 'x')) == 413);
  CHECK(status("GET", "/" + std::string(64, 'x'), "") == 414);
  CHECK(status("POST", "/jobs", R"({"duration_ms": 1001})") == 422);
  CHECK(status("POST", "/jobs", R"({"duration_ms": 1000})") == 202);
  CHECK(status("POST", "/jobs", R"({"duration_ms": 1000})") == 429);
  CHECK(status("GET", "/work?cpu=11ms", "") == 400);
  CHECK(status("POST", "/session", "") == 201);
  CHECK(status("POST", "/session", "") == 503);
  server.stop();
}

TEST_CASE("pattern-server - usage errors are one line and exit 2") {
  const std::vector<Arguments> wrong = {
      {"--backend", "epol"},     {"--upstream", "127.0.0.1"}, {"--upstream", "here:"},
      {"--sessions", "disk"},    {"--sessions", "sqlite"},    {"--session-db", "x"},
      {"--token-key-file", "x"}, {"--max-body", "1KB"},       {"--max-body", "-1"},
      {"--max-jobs", "many"},    {"--max-jobs", "-1"},        {"--read-timeout", "5"},
      {"--read-timeout", "5d"},  {"--delay", "5ms"},          {"surplus"},
  };
  for (Arguments arguments : wrong) {
    CAPTURE(arguments);
    arguments.insert(arguments.end(), {"--listen", "127.0.0.1:0"});
    const Outcome o = run("pattern-server", arguments);
    CHECK(o.code == 2);
    CHECK(o.out.empty());
    CHECK(one_line(o.err));
  }
}

TEST_CASE("pattern-server - what cannot be had is one line and exit 1") {
  const Listener taken("127.0.0.1", 0, Listener::Mode::nonblocking, false);
  for (const Arguments& arguments :
       {Arguments{"--listen", fmt::format("127.0.0.1:{}", taken.port())},
        Arguments{"--listen", "127.0.0.1:0", "--sessions", "sqlite", "--session-db",
                  "/nonexistent/folder/sessions.db"}}) {
    CAPTURE(arguments);
    const Outcome o = run("pattern-server", arguments);
    CHECK(o.code == 1);
    CHECK(o.out.empty());
    CHECK(one_line(o.err));
  }
}

TEST_CASE("pattern-server - help names the options of its own") {
  const Outcome help = run("pattern-server", {"--help"});
  CHECK(help.code == 0);
  for (const char* option : {"--backend", "--listen", "127.0.0.1:8080", "--upstream", "--sessions",
                             "--session-db", "--max-body", "--idle-timeout"}) {
    CHECK(contains(help.out, option));
  }
}

}  // namespace
}  // namespace echolab::test
