// Each backend file states what one echo costs in system calls, in a line of the form
//   // cost: epoll_wait 1, recvfrom 1, sendto 1
// and counts its own. Both are checked against what strace(1) sees. The server runs twice with
// different numbers of echoes and only the difference is looked at, so that starting and stopping
// cancel out.
#include <fmt/format.h>

#include <cmath>
#include <csignal>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/program.hpp"
#include "tests/skip.hpp"

namespace echolab::test {
namespace {

using Calls = std::map<std::string, double>;

constexpr std::size_t kFew = 100;
constexpr std::size_t kMany = 600;
constexpr double kEchoes = kMany - kFew;
// Calls per echo that a stated cost may be off by: a message that TCP cut in two, a timer, a batch.
constexpr double kSlack = 0.05;
// The libuv threadpool collides with the loop now and then (an EAGAIN, a wake-up that found
// nothing).
constexpr double kPoolSlack = 0.25;

// Why strace cannot be used; empty if it can.
std::string no_strace() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return "sanitizers make system calls of their own";
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  return "sanitizers make system calls of their own";
#endif
#endif
  try {
    Program strace({"strace", "-qq", "-o", "/dev/null", "true"});
    if (strace.wait() != 0) return "strace does not work here: " + strace.err();
  } catch (const std::system_error& e) {
    return e.what();
  }
  return "";
}

// The stated cost of one echo.
Calls stated(const std::string& file) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    const std::size_t at = line.find("// cost: ");
    if (at != 0) continue;
    Calls calls;
    std::istringstream items(line.substr(9));
    for (std::string item; std::getline(items, item, ',');) {
      std::string name;
      double n = 0;
      if (!(std::istringstream(item) >> name >> n)) break;
      calls[name] = n;
    }
    return calls;
  }
  return {};
}

struct Run {
  Calls traced;
  nlohmann::json counters;
};

// Counts calls by name in the summary table of strace -c: its last two columns are errors, which
// may be blank, and the name; the fourth is the number of calls.
Calls summary(const std::string& table) {
  Calls calls;
  std::istringstream in(table);
  for (std::string line; std::getline(in, line);) {
    std::istringstream columns(line);
    std::string percent;
    std::string seconds;
    std::string each;
    std::string last;
    double n = 0;
    if (!(columns >> percent >> seconds >> each >> n)) continue;
    for (std::string word; columns >> word;) last = word;
    if (last != "total") calls[last] = n;
  }
  return calls;
}

Run run_traced(const Target& target, std::size_t echoes) {
  const TemporaryFile trace;
  const TemporaryFile stats;
  // One worker: a thread's start and end cost calls of its own, and not always as many.
  const bool pool = std::string_view(target.spec).starts_with("threads:pool=");
  const std::string spec = pool ? "threads:pool=1" : target.spec;
  // strace leaves SIGTERM to the server, whose pid is in its statistics.
  Program server({"strace", "-f", "-qq", "-c", "-o", trace.path(), program("echo-server"),
                  "--backend", spec, "--listen", "127.0.0.1:0", "--stats-json", stats.path()});
  const auto port = static_cast<std::uint16_t>(std::stoi(server.read_line()));
  const pid_t pid = nlohmann::json::parse(stats.text()).at("pid");
  {
    auto peer = connect_tcp("127.0.0.1", port);
    if (!peer) throw std::runtime_error("refused");
    for (std::size_t i = 0; i < echoes; ++i) {
      const Blob request = pattern(i, 64);
      REQUIRE(difference(request, peer->exchange(request, request.size())) == "");
    }
    REQUIRE(peer->exchange_all({}).empty());
  }
  ::kill(pid, SIGTERM);
  REQUIRE(server.wait() == 0);
  return {summary(trace.text()), nlohmann::json::parse(stats.text()).at("counters")};
}

CONFORMANCE(system_calls, "system calls are as stated and as counted", Over::one_loop) {
  if (target.simulated()) return;
  if (const std::string reason = no_strace(); !reason.empty()) {
    skip(reason);
    return;
  }
  const Run few = run_traced(target, kFew);
  const Run many = run_traced(target, kMany);
  const auto traced = [&](const std::string& name) {
    const auto of = [&](const Run& run) {
      const auto at = run.traced.find(name);
      return at == run.traced.end() ? 0.0 : at->second;
    };
    return (of(many) - of(few)) / kEchoes;
  };
  const auto counted = [&](const std::string& name) {
    return (many.counters.at(name).get<double>() - few.counters.at(name).get<double>()) / kEchoes;
  };
  std::string all;
  for (const auto& [name, n] : many.traced) {
    if (traced(name) > 0.001) all += fmt::format("{} {:.3f}, ", name, traced(name));
  }
  INFO("calls per echo as traced: " << all);

  const std::string spec = target.spec;
  const std::string model = spec.substr(0, spec.find(':'));
  // The stated cost is the default's.
  if (spec == model) {
    const Calls cost = stated(fmt::format("backends/{}.cpp", model));
    CHECK_FALSE(cost.empty());
    const double slack = model == "libuv" ? kPoolSlack : kSlack;
    for (const auto& [name, n] : cost) {
      CAPTURE(name);
      CHECK(traced(name) >= n - slack);
      CHECK(traced(name) <= n + slack);
    }
    // And nothing else that talks to the kernel about bytes or readiness.
    for (const std::string name :
         {"epoll_wait", "epoll_pwait", "epoll_ctl", "poll", "ppoll", "recvfrom", "recvmsg", "read",
          "readv", "sendto", "sendmsg", "write", "writev", "io_uring_enter", "setsockopt", "fcntl",
          "ioctl"}) {
      CAPTURE(name);
      if (cost.count(name) == 0) CHECK(traced(name) <= slack);
    }
  }

  // The backend's own counters agree with what was seen, kind by kind. Bytes to and from sockets
  // and eventfds are one group: libuv reads and writes both with the same calls.
  const auto agree = [&](const std::vector<std::string>& counters,
                         const std::vector<std::string>& calls) {
    double own = 0;
    double seen = 0;
    for (const std::string& name : counters) own += counted(name);
    for (const std::string& name : calls) seen += traced(name);
    CAPTURE(counters, calls);
    CHECK(std::abs(own - seen) <= kSlack);
  };
  agree({"sys_wait"}, {"epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll"});
  agree({"sys_enter"}, {"io_uring_enter"});
  agree({"sys_epoll_ctl"}, {"epoll_ctl"});
  agree({"sys_recv", "sys_send", "sys_wake"},
        {"recvfrom", "recvmsg", "read", "readv", "sendto", "sendmsg", "write", "writev"});
  agree({"sys_sockopt"}, {"setsockopt"});
  agree({"sys_accept"}, {"accept4", "accept"});
  agree({"sys_shutdown"}, {"shutdown"});
}

}  // namespace
}  // namespace echolab::test
