// The echo-server program: what it prints, writes and returns, and how it stops.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "backends/sockets.hpp"
#include "tests/program.hpp"
#include "tests/skip.hpp"

namespace echolab::test {
namespace {

using nlohmann::json;

std::uint16_t port_of(const std::string& line) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), port);
  if (error != std::errc{} || end != line.data() + line.size() || port == 0) {
    throw std::runtime_error("the first line is not a port: " + line);
  }
  return port;
}

json read_json(const TemporaryFile& file) {
  return json::parse(file.text());
}

// The server writes its file on a signal and does not say when.
json await_snapshot(const TemporaryFile& file, int at_least) {
  const Time until = std::chrono::steady_clock::now() + kPatience;
  for (;;) {
    const json stats = json::parse(file.text(), nullptr, false);
    if (!stats.is_discarded() && stats.value("snapshot", -1) >= at_least) return stats;
    if (std::chrono::steady_clock::now() > until) throw std::runtime_error("no snapshot came");
    usleep(2000);
  }
}

CONFORMANCE(program_serves, "echo-server serves and counts and drains on SIGTERM", Over::all) {
  if (target.simulated()) return;
  const TemporaryFile file;
  Program server({program("echo-server"), "--backend", target.spec, "--listen", "127.0.0.1:0",
                  "--threads", std::to_string(target.loops), "--stats-json", file.path()});
  const std::uint16_t port = port_of(server.read_line());
  {
    auto peer = connect_tcp("127.0.0.1", port);
    REQUIRE(peer);
    for (const std::size_t size : {1UL, 64UL, 100'000UL}) {
      const Blob request = pattern(size, size);
      CHECK(difference(request, peer->exchange(request, size)) == "");
    }
    server.signal(SIGTERM);
    CHECK(peer->read_all().empty());
  }
  CHECK(server.wait() == 0);
  CHECK(server.out().find("bytes_in 100065\n") != std::string::npos);
  CHECK(server.out().find("bytes_out 100065\n") != std::string::npos);

  const json stats = read_json(file);
  CHECK(stats.at("schema") == "echolab.stats");
  CHECK(stats.at("version") == 1);
  CHECK(stats.at("backend") == target.spec);
  CHECK(stats.at("threads") == target.loops);
  CHECK(stats.at("port") == port);
  CHECK(stats.at("final") == true);
  CHECK(stats.at("counters").size() == kCounts);
  CHECK(stats.at("counters").at("accepted") == 1);
  CHECK(stats.at("counters").at("closed") == 1);
  CHECK(stats.at("counters").at("bytes_in") == 100'065);
  CHECK(stats.at("batches").size() == kBatchBuckets);
  for (const json& feature : stats.at("features")) {
    CHECK(feature.at("name").is_string());
    CHECK(feature.at("asked").is_boolean());
    CHECK(feature.at("granted").is_boolean());
    CHECK(feature.at("note").is_string());
  }
}

TEST_CASE("echo-server - SIGUSR1 writes a snapshot while it serves") {
  const TemporaryFile file;
  Program server({program("echo-server"), "--listen", "127.0.0.1:0", "--stats-json", file.path()});
  const std::uint16_t port = port_of(server.read_line());
  const json first = read_json(file);  // written before the port is printed
  CHECK(first.at("snapshot") == 0);
  CHECK(first.at("final") == false);
  CHECK(first.at("pid") == server.pid());
  CHECK(first.at("port") == port);
  auto peer = connect_tcp("127.0.0.1", port);
  REQUIRE(peer);
  for (int i = 1; i <= 3; ++i) {
    peer->exchange(pattern(1, 1000), 1000);
    server.signal(SIGUSR1);
    const json stats = await_snapshot(file, i);
    CHECK(stats.at("snapshot") == i);
    CHECK(stats.at("final") == false);
    CHECK(stats.at("counters").at("bytes_in") == 1000 * i);
  }
  peer.reset();
  server.signal(SIGINT);
  CHECK(server.wait() == 0);
  CHECK(read_json(file).at("snapshot") == 4);
  CHECK(read_json(file).at("final") == true);
}

TEST_CASE("echo-server - a file that cannot be written is an error at the start") {
  const Outcome o = run(
      "echo-server", {"--listen", "127.0.0.1:0", "--stats-json", "/nonexistent/folder/stats.json"});
  CHECK(o.code == 1);
  CHECK(one_line(o.err));
  CHECK(o.err.find("/nonexistent/folder/stats.json") != std::string::npos);
}

TEST_CASE("echo-server - counters go to where a symbolic link leads") {
  const TemporaryFile target;
  const std::string link = target.path() + ".link";
  const std::string made = target.path() + ".made";  // by the server
  for (const std::string& to : {target.path(), made}) {
    // A link to a link, by a name in the same folder.
    std::filesystem::create_symlink(std::filesystem::path(to).filename(), link + "2");
    std::filesystem::create_symlink(link + "2", link);
    Program server({program("echo-server"), "--listen", "127.0.0.1:0", "--stats-json", link});
    port_of(server.read_line());
    server.signal(SIGTERM);
    CHECK(server.wait() == 0);
    CHECK(std::filesystem::is_symlink(link));
    CHECK(std::filesystem::is_symlink(link + "2"));
    CHECK(json::parse(std::ifstream(to)).at("final") == true);
    std::filesystem::remove(link);
    std::filesystem::remove(link + "2");
  }
  std::filesystem::remove(made);
}

TEST_CASE("echo-server - counters written into a FIFO leave it one") {
  const TemporaryFile name;
  const std::string fifo = name.path() + ".fifo";
  REQUIRE(mkfifo(fifo.c_str(), 0600) == 0);
  const Outcome unread = run("echo-server", {"--listen", "127.0.0.1:0", "--stats-json", fifo});
  CHECK(unread.code == 1);
  CHECK(one_line(unread.err));
  {
    const Fd reader(open(fifo.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    Program server({program("echo-server"), "--listen", "127.0.0.1:0", "--stats-json", fifo});
    port_of(server.read_line());
    server.signal(SIGTERM);
    CHECK(server.wait() == 0);
    std::string text(1 << 16, '\0');
    const ssize_t n = read(reader.get(), text.data(), text.size());
    REQUIRE(n > 0);
    text.resize(static_cast<std::size_t>(n));
    const std::size_t second = text.find("}\n{") + 2;  // the first was written at the start
    CHECK(json::parse(text.substr(0, second)).at("snapshot") == 0);
    CHECK(json::parse(text.substr(second)).at("final") == true);
  }
  CHECK(std::filesystem::is_fifo(fifo));
  std::filesystem::remove(fifo);
}

TEST_CASE("echo-server - output that cannot be written is an error") {
  const auto run_into_full = [](const std::string& arguments) {
    Program p({"sh", "-c", "exec " + program("echo-server") + " " + arguments + " >/dev/full"});
    const int code = p.wait();
    CHECK(one_line(p.err()));
    return code;
  };
  CHECK(run_into_full("--list") == 1);
  CHECK(run_into_full("--list --json") == 1);
  CHECK(run_into_full("--help") == 1);
  CHECK(run_into_full("--listen 127.0.0.1:0") == 1);
}

CONFORMANCE(descriptor_limit, "echo-server goes on after it had no descriptors left",
            Over::one_loop) {
  if (target.simulated()) return;
  Program server({"prlimit", "--nofile=64:64", program("echo-server"), "--backend", target.spec,
                  "--listen", "127.0.0.1:0", "--threads", "4"});
  const std::uint16_t port = port_of(server.read_line());
  const auto get_served = [port] {
    for (const Time until = std::chrono::steady_clock::now() + kPatience;;) {
      REQUIRE(std::chrono::steady_clock::now() < until);
      auto peer = connect_tcp("127.0.0.1", port);
      REQUIRE(peer);
      peer->send_some(pattern(1, 1));
      CHECK(peer->wait(true, false, kPatience));
      if (peer->read_some(1).size() == 1) return peer;
    }
  };
  {
    Peers peers;
    peers.push_back(get_served());  // workers of a pool that wait have taken descriptors, too
    for (int i = 1; i < 200; ++i) {
      peers.push_back(connect_tcp("127.0.0.1", port));
      REQUIRE(peers.back());
      peers.back()->send_some(pattern(1, 1));
    }
    std::this_thread::sleep_for(3 * kMoment);  // for a loop that spins to show
    // Nobody is left waiting: who cannot be served is closed. The first has been served above.
    for (std::size_t i = 1; i < peers.size(); ++i) CHECK(peers[i]->wait(true, false, kPatience));
  }
  get_served();  // refused until the server has seen that the others are gone
  server.signal(SIGTERM);
  CHECK(server.wait() == 0);
  const std::size_t at = server.out().find("sys_accept ");
  if (at != std::string::npos) CHECK(std::stoul(server.out().substr(at + 11)) < 20'000);
  if (server.out().find("\nrefused ") != std::string::npos) {
    CHECK(one_line(server.err()));
    CHECK(server.err().find("64 descriptors") != std::string::npos);
  } else {
    CHECK(server.err().empty());
  }
}

TEST_CASE("echo-server - a thread that cannot be had is one line and exit 1") {
  if (scaled(1, 0) == 0) return;  // sanitizers reserve far more memory than is allowed here
  for (const char* backend : {"epoll", "threads:pool=300"}) {
    // Each thread reserves its stack.
    Program server({"prlimit", "--as=1000000000", program("echo-server"), "--backend", backend,
                    "--listen", "127.0.0.1:0", "--threads", "300"});
    CHECK(server.wait() == 1);
    CHECK(one_line(server.err()));
    CHECK(server.err().find("cannot start a thread") != std::string::npos);
  }
}

TEST_CASE("echo-server - IPv6") {
  try {
    const Listener here("::1", 0, Listener::Mode::nonblocking, false);
  } catch (const std::system_error& e) {
    skip(fmt::format("no IPv6 here: {}", e.what()));
    return;
  }
  Program server({program("echo-server"), "--listen", "[::1]:0"});
  auto peer = connect_tcp("::1", port_of(server.read_line()));
  REQUIRE(peer);
  const Blob request = pattern(1, 10'000);
  CHECK(difference(request, peer->exchange_all(request)) == "");
  server.signal(SIGTERM);
  CHECK(server.wait() == 0);
}

TEST_CASE("echo-server - a client that does not close is cut off when the grace period ends") {
  Program server({program("echo-server"), "--listen", "127.0.0.1:0", "--grace", "200ms"});
  auto peer = connect_tcp("127.0.0.1", port_of(server.read_line()), {.receive_buffer = 4096});
  REQUIRE(peer);
  peer->send_until_stuck(pattern(1, 32 << 20));
  const Time before = std::chrono::steady_clock::now();
  server.signal(SIGTERM);
  CHECK(server.wait() == 0);
  CHECK(std::chrono::steady_clock::now() - before >= 200ms);
}

TEST_CASE("echo-server - usage errors are one line and exit 2") {
  const std::vector<std::vector<std::string>> wrong = {
      {"--backend", "epol"},
      {"--backend", ""},
      {"--backend", "threads:pool=0"},
      {"--listen", "127.0.0.1"},
      {"--listen", "127.0.0.1:"},
      {"--listen", "127.0.0.1:65536"},
      {"--listen", "127.0.0.1:-1"},
      {"--listen", "127.0.0.1:http"},
      {"--listen", "::1:0"},
      {"--listen", ":0"},
      {"--threads", "0"},
      {"--threads", "-1"},
      {"--threads", "many"},
      {"--grace", "5"},
      {"--grace", "-5s"},
      {"--grace", "soon"},
      {"--no-such-option"},
      {"surplus"},
      {"--json"},
  };
  for (auto arguments : wrong) {
    CAPTURE(arguments);
    const Outcome o = run("echo-server", arguments);
    CHECK(o.code == 2);
    CHECK(o.out.empty());
    CHECK(one_line(o.err));
  }
  const Outcome unknown = run("echo-server", {"--backend", "kqueue", "--listen", "127.0.0.1:0"});
  CHECK(unknown.code == 2);
  CHECK(one_line(unknown.err));
  for (const Variant& v : catalogue()) CHECK(unknown.err.find(v.name) != std::string::npos);
}

TEST_CASE("echo-server - an address that is no address") {
  const Outcome o = run("echo-server", {"--listen", "localhost:0"});
  CHECK(o.code == 2);
  CHECK(o.out.empty());
  CHECK(one_line(o.err));
  CHECK(o.err.find("localhost") != std::string::npos);
}

TEST_CASE("echo-server - a port in use is one line and exit 1") {
  const Listener taken("127.0.0.1", 0, Listener::Mode::nonblocking, false);
  const Outcome o = run("echo-server", {"--listen", fmt::format("127.0.0.1:{}", taken.port())});
  CHECK(o.code == 1);
  CHECK(o.out.empty());
  CHECK(one_line(o.err));
  CHECK(o.err.find(std::to_string(taken.port())) != std::string::npos);
  CHECK(o.err.find("choose another port") != std::string::npos);
}

TEST_CASE("echo-server - a port that another server with loops has is not shared with it") {
  Program first({program("echo-server"), "--listen", "127.0.0.1:0", "--threads", "2"});
  const std::string address = "127.0.0.1:" + first.read_line();
  const Outcome o = run("echo-server", {"--listen", address, "--threads", "2"});
  CHECK(o.code == 1);
  CHECK(o.out.empty());
  CHECK(one_line(o.err));
  CHECK(o.err.find("choose another port") != std::string::npos);
  first.signal(SIGTERM);
  CHECK(first.wait() == 0);
  Program next({program("echo-server"), "--listen", address, "--threads", "2"});
  CHECK("127.0.0.1:" + next.read_line() == address);
}

TEST_CASE("echo-server - a backend that cannot run here is one line and exit 3") {
  bool all_can = true;
  for (const Variant& v : catalogue()) {
    if (v.unavailable.empty()) continue;
    all_can = false;
    const Outcome o = run("echo-server", {"--backend", v.name, "--listen", "127.0.0.1:0"});
    CHECK(o.code == 3);
    CHECK(one_line(o.err));
    CHECK(o.err.find(v.unavailable) != std::string::npos);
  }
  if (all_can) skip("every backend can run here");
}

TEST_CASE("echo-server - the list, for people and as JSON") {
  const Outcome text = run("echo-server", {"--list"});
  CHECK(text.code == 0);
  const Outcome as_json = run("echo-server", {"--list", "--json"});
  CHECK(as_json.code == 0);
  const json list = json::parse(as_json.out);
  CHECK(list.at("schema") == "echolab.catalogue");
  CHECK(list.at("version") == 1);
  const std::vector<Variant> all = catalogue();
  REQUIRE(list.at("variants").size() == all.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    CHECK(list.at("variants")[i].at("name") == all[i].name);
    CHECK(list.at("variants")[i].at("why") == all[i].why);
    CHECK(list.at("variants")[i].at("unavailable") == all[i].unavailable);
    CHECK(text.out.find(all[i].why) != std::string::npos);
  }
  const Outcome help = run("echo-server", {"--help"});
  CHECK(help.code == 0);
  CHECK(help.out.find("--backend") != std::string::npos);
}

}  // namespace
}  // namespace echolab::test
