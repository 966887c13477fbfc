// What waits and hears nothing: memory of the server for each, and what it does all the same.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "harness/files.hpp"
#include "harness/pattern_parts.hpp"
#include "harness/pattern_servers.hpp"
#include "harness/subscribers.hpp"

namespace echolab::harness {
namespace {

using Clock = std::chrono::steady_clock;

// A connection of `threads` costs two threads, which is its wall: what a usual limit of processes
// allows with room to spare.
constexpr unsigned kMostWithThreads = 1000;
constexpr Millis kIdleLook{50};
constexpr Millis kSettle{3'000};  // what a server does once after clients have come

constexpr const char* kQuiet = "quiet";

struct Kind {
  const char* name;
  const char* gauge;  // of /metrics: how many of them there are
};
constexpr Kind kKinds[] = {
    {"sse", "\necholab_event_streams "},
    {"websocket", "\necholab_websockets "},
    {"long_poll", "\necholab_topic_waiters "},
};

std::uint64_t gauge_of(std::uint16_t port, const Kind& kind) {
  const std::string answer =
      Asker(port).ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  const auto at = answer.find(kind.gauge);
  if (at == std::string::npos) throw PatternError("/metrics does not count them");
  return std::strtoull(answer.c_str() + at + std::string_view(kind.gauge).size(), nullptr, 10);
}

// Anonymous memory that is resident: heaps and stacks, not the program and its libraries (proc(5)).
std::uint64_t anonymous_bytes(pid_t pid) {
  const std::string status = read_text(fmt::format("/proc/{}/status", pid)).value_or("");
  constexpr std::string_view kLabel = "RssAnon:";
  const auto at = status.find(kLabel);
  if (at == std::string::npos) throw PatternError("no RssAnon in /proc/PID/status");
  return std::strtoull(status.c_str() + at + kLabel.size(), nullptr, 10) * 1024;
}

// Start and end of what cannot be known from outside: one answer of each kind has been given, so
// that what all share is there.
void warm_up(std::uint16_t port, const Kind& kind) {
  gauge_of(port, kind);
  const Subscribers one(port, 1, waiting_request(kind.name, kQuiet),
                        [](std::string_view) { return true; });
}

void wait_for(std::uint16_t port, const Kind& kind, std::uint64_t wanted) {
  const auto deadline = Clock::now() + kPatience;
  while (gauge_of(port, kind) != wanted) {
    if (Clock::now() > deadline) {
      throw PatternError(fmt::format("{} of {} are there", gauge_of(port, kind), wanted));
    }
    std::this_thread::sleep_for(kIdleLook);
  }
}

void pause(Millis span) {
  const auto end = Clock::now() + span;
  while (Clock::now() < end) {
    if (Load::interrupted()) throw LoadError(LoadError::Kind::interrupted, "interrupted");
    std::this_thread::sleep_for(kIdleLook);
  }
}

void watch(IdleRow& row, Server& server, std::chrono::seconds span) {
  pause(kSettle);
  const Usage before = server.accounting().usage();
  const auto start = Clock::now();
  pause(span);
  const Usage after = server.accounting().usage();
  row.watched_ns = static_cast<std::uint64_t>((Clock::now() - start).count());
  row.switches = after.voluntary_switches + after.involuntary_switches - before.voluntary_switches -
                 before.involuntary_switches;
  row.server_cpu_ns = after.cpu_ns - before.cpu_ns;
}

void measure(IdleRow& row, const Kind& kind, const PatternOptions& options) {
  Server server = start_pattern_server(row.contender, options.server_cpus);
  warm_up(server.port(), kind);
  wait_for(server.port(), kind, 0);
  row.bytes_before = anonymous_bytes(server.pid());
  const bool parked = kind.name == std::string_view("long_poll");
  const Subscribers waiting(server.port(), row.connections, waiting_request(kind.name, kQuiet),
                            [&](std::string_view received) { return parked || !received.empty(); });
  wait_for(server.port(), kind, row.connections);
  row.bytes_after = anonymous_bytes(server.pid());
  watch(row, server, options.watch);
}

}  // namespace

void PatternBench::idle(const std::string& backend, const std::string& kind) {
  IdleRow& row = record_.idle.emplace_back();
  row.contender = backend;
  row.kind = kind;
  const bool threads = backend.starts_with("threads");
  row.connections = threads ? std::min(options_.idle, kMostWithThreads) : options_.idle;
  step_(fmt::format("{} idle {} on {}", row.connections, kind, backend), 0, 1);
  const auto* found = std::find_if(std::begin(kKinds), std::end(kKinds),
                                   [&](const Kind& k) { return kind == k.name; });
  try {
    measure(row, *found, options_);
  } catch (const std::exception& error) {
    if (Load::interrupted()) {
      record_.idle.pop_back();
      throw LoadError(LoadError::Kind::interrupted, "interrupted");
    }
    row.error = error.what();
  }
}

}  // namespace echolab::harness
