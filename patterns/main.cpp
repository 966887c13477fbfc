// pattern-server: the communication patterns over HTTP and WebSocket, over any backend.

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <map>
#include <stdexcept>
#include <system_error>

#include "backends/backend.hpp"
#include "backends/serve.hpp"
#include "patterns/app.hpp"

namespace echolab::patterns {
namespace {

[[noreturn]] void fail(const std::string& what) {
  throw std::system_error(errno, std::system_category(), what);
}

class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  [[nodiscard]] int fd() const { return fd_; }

 private:
  int fd_;
};

// Written beside it and linked, so that the name appears with the whole key or not at all, and two
// servers that start at the same time agree on one.
void make_key_file(const std::string& path, const RandomSource& random) {
  TokenKey key;
  random(key);
  std::string temporary = path + ".XXXXXX";
  const File file(::mkstemp(temporary.data()));  // mode 0600
  if (file.fd() < 0) fail("cannot create " + temporary);
  const bool written =
      ::write(file.fd(), key.data(), key.size()) == static_cast<ssize_t>(key.size()) &&
      ::fsync(file.fd()) == 0;
  const bool linked = written && (::link(temporary.c_str(), path.c_str()) == 0 || errno == EEXIST);
  const int error = errno;
  ::unlink(temporary.c_str());
  errno = error;
  if (!linked) fail("cannot write " + path);
}

TokenKey read_key_file(const std::string& path, const RandomSource& random) {
  if (::access(path.c_str(), F_OK) != 0 && errno == ENOENT) make_key_file(path, random);
  const File file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.fd() < 0) fail("cannot open " + path);
  struct stat status {};
  if (::fstat(file.fd(), &status) != 0) fail("cannot read " + path);
  if ((status.st_mode & 077) != 0) {
    throw std::runtime_error(path + ": others may read or change this key: chmod 600");
  }
  TokenKey key;
  if (status.st_size != static_cast<off_t>(key.size()) ||
      ::read(file.fd(), key.data(), key.size()) != static_cast<ssize_t>(key.size())) {
    throw std::runtime_error(fmt::format("{}: a key has {} bytes", path, key.size()));
  }
  return key;
}

void add_backend_metrics(const Backend& backend, MetricsText& text) {
  const Stats stats = backend.stats();
  for (std::size_t i = 0; i < kCounts; ++i) {
    text.add("echolab_backend_total", MetricsText::Type::counter, "What the backend counts.",
             stats.counts[i], fmt::format("count=\"{}\"", name_of(static_cast<Count>(i))));
  }
}

class PatternServer final : public Program {
  const char* name() const override { return "pattern-server"; }
  const char* about() const override {
    return "Request/response, push, polling, long polling, server-sent events, pub/sub and "
           "sessions "
           "over blocking threads, epoll, io_uring or libuv.";
  }
  const char* default_listen() const override { return "127.0.0.1:8080"; }

  void add_options(CLI::App& app) override {
    AppLimits& limits = options_.limits;
    app.add_option("--upstream", upstream_, "ADDRESS:PORT of the echo server behind /gateway");
    const std::map<std::string, AppOptions::Sessions> kinds{
        {"memory", AppOptions::Sessions::memory},
        {"token", AppOptions::Sessions::token},
        {"sqlite", AppOptions::Sessions::sqlite}};
    app.add_option("--sessions", options_.sessions,
                   "where sessions are kept: memory, token, sqlite")
        ->transform(CLI::Transformer(kinds))
        ->type_name("KIND")
        ->default_str("memory");
    app.add_option("--token-key-file", key_file_,
                   "with --sessions token: the key; made if it is not there")
        ->type_name("FILE");
    app.add_option("--session-db", options_.session_db, "with --sessions sqlite: the database")
        ->type_name("FILE");

    count(app, "--max-connections", limits.connections, "open connections; more: 503");

    HttpLimits& http = limits.http;
    add_size_option(app, "--max-target", http.target, "request target; longer: 414");
    add_size_option(app, "--max-header", http.header, "request line and fields; more: 431");
    count(app, "--max-fields", http.fields, "header fields; more: 431");
    add_size_option(app, "--max-body", http.body, "request body; more: 413");
    add_size_option(app, "--max-pipelined", http.pipelined, "bytes ahead of an unanswered request");
    add_time_option(app, "--read-timeout", http.read, "for a whole request; longer: 408");
    add_time_option(app, "--idle-timeout", http.idle, "between requests");
    add_time_option(app, "--write-timeout", http.write, "for a client that takes nothing");

    HubLimits& hub = limits.hub;
    count(app, "--max-topics", hub.topics, "topics; more: 429");
    count(app, "--max-subscriptions", hub.subscriptions, "of all clients; more: 429");
    add_size_option(app, "--max-message", hub.message, "published to a topic; more: 413");
    count(app, "--ring-messages", hub.ring_messages, "history of a topic");
    add_size_option(app, "--ring-bytes", hub.ring_bytes, "history of a topic");
    add_size_option(app, "--history-bytes", hub.history_bytes, "history of all topics");

    TopicLimits& topics = limits.topics;
    count(app, "--max-topic-waiters", topics.waiters, "parked long polls, publishers; more: 503");
    count(app, "--max-streams", topics.streams, "event streams; more: 503");
    add_time_option(app, "--poll-wait", topics.wait, "of a long poll that does not say");
    add_time_option(app, "--max-poll-wait", topics.longest_wait, "of a long poll; more is cut");
    add_size_option(app, "--max-poll-answer", topics.answer_bytes, "of a long poll");
    count(app, "--max-listed", topics.listed, "topics in GET /topics");
    add_time_option(app, "--sse-retry", topics.retry, "what an event stream's client is told");
    add_time_option(app, "--sse-heartbeat", topics.heartbeat, "of a silent event stream");
    count(app, "--slow-messages", topics.consumer.messages, "that a slow subscriber may owe");
    add_size_option(app, "--slow-bytes", topics.consumer.bytes, "that a slow subscriber may owe");
    add_time_option(app, "--slow-deadline", topics.consumer.deadline, "of a stuck subscriber");

    WsLimits& websocket = limits.websocket;
    app.add_option("--allow-origin", options_.origins,
                   "whose pages may open a WebSocket; * for all; may be repeated")
        ->type_name("ORIGIN")
        ->default_str("this host's");
    count(app, "--max-websockets", limits.push.connections, "open at once; more: 503");
    add_size_option(app, "--max-ws-message", websocket.message, "inflated; more: close 1009");
    add_time_option(app, "--ws-heartbeat", websocket.heartbeat, "of a silent WebSocket");
    add_time_option(app, "--ws-pong", websocket.pong, "for the answer to a ping");
    add_time_option(app, "--ws-close", websocket.close, "for the peer's Close");
    count(app, "--max-ws-subscriptions", limits.push.subscriptions, "of one WebSocket");
    count(app, "--max-ws-waiting", limits.push.waiting, "held-up publications of one WebSocket");
    add_size_option(app, "--max-ws-waiting-bytes", limits.push.waiting_bytes, "of those");

    JobLimits& jobs = limits.jobs;
    count(app, "--max-jobs", jobs.jobs, "jobs running or kept; more: 429");
    count(app, "--max-job-waiters", jobs.waiters, "requests parked on jobs; more: 503");
    count(app, "--max-jobs-gone", jobs.gone, "ended jobs that are still answered with 410");
    add_time_option(app, "--max-job-time", jobs.longest, "duration of a job; more: 422");
    add_time_option(app, "--max-job-wait", jobs.wait, "of Prefer: wait; more is cut");
    add_time_option(app, "--keep-job", jobs.keep, "after its end; then 410");
    add_time_option(app, "--keep-job-gone", jobs.gone_for, "and then 404");

    SessionLimits& sessions = limits.sessions;
    count(app, "--max-sessions", sessions.sessions, "sessions kept by the server; more: 503");
    add_time_option(app, "--session-ttl", sessions.ttl, "since the last increment");
    count(app, "--max-session-queue", sessions.queue, "requests waiting for the store; more: 503");
    count(app, "--max-session-batch", sessions.batch, "requests in one transaction");
    add_size_option(app, "--max-session-db", sessions.file, "the database; more: 503");
    add_time_option(app, "--session-db-busy", sessions.busy,
                    "for another process to let go of it; then 503");

    add_time_option(app, "--gateway-timeout", limits.gateway.timeout, "for the upstream");
    add_time_option(app, "--max-gateway-timeout", limits.gateway.longest,
                    "that a client may ask for; more: 400");
    add_time_option(app, "--max-work", limits.work.longest, "of /work; more: 400");
  }

  std::unique_ptr<Service> start(Backend& backend) override {
    using Sessions = AppOptions::Sessions;
    if (!upstream_.empty()) options_.upstream = parse_address("--upstream", upstream_);
    if ((options_.sessions == Sessions::sqlite) == options_.session_db.empty()) {
      throw std::invalid_argument("--sessions sqlite and --session-db FILE need each other");
    }
    if (options_.sessions != Sessions::token && !key_file_.empty()) {
      throw std::invalid_argument("--token-key-file needs --sessions token");
    }
    const RandomSource random = system_random();
    if (options_.sessions == Sessions::token && key_file_.empty()) {
      random(options_.token_key);
      fmt::print(stderr,
                 "pattern-server: no --token-key-file: tokens will not outlive this server\n");
    } else if (options_.sessions == Sessions::token) {
      options_.token_key = read_key_file(key_file_, random);
    }
    const WallClock clock{std::chrono::system_clock::now(), std::chrono::steady_clock::now()};
    return std::make_unique<App>(options_, backend, clock, random, [&backend](MetricsText& text) {
      add_backend_metrics(backend, text);
    });
  }

  static void count(CLI::App& app, const char* name, std::size_t& value, const char* about) {
    app.add_option(name, value, about)
        ->check(CLI::NonNegativeNumber)
        ->type_name("N")
        ->capture_default_str();
  }

  AppOptions options_;
  std::string upstream_;  // empty: none
  std::string key_file_;  // empty: none
};

}  // namespace
}  // namespace echolab::patterns

int main(int argc, char** argv) {
  echolab::patterns::PatternServer program;
  return echolab::serve(argc, argv, program);
}
