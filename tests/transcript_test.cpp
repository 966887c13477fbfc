// One suite of transcripts over every backend: the same bytes, however they are cut and whichever
// model moves them, get the same bytes back. Ids and dates stand still.
//
// In the simulator, and by hand, every single cut is tried. On real sockets a cut costs a pause, so
// that the kernel does not join the pieces again; there it is a few cuts, on many connections that
// wait at the same time.
#include <fmt/format.h>

#include "tests/http_probe.hpp"
#include "tests/session_driver.hpp"
#include "tests/world.hpp"

namespace echolab::test {
namespace {

constexpr std::size_t kRealCuts = 6;  // a transcript and real backend
constexpr Duration kPause = 5ms;      // long enough that a piece is usually read alone
constexpr Duration kDriven = 1h;      // by hand: until every deadline has passed

// Each ends by itself or with the client's half-close.
const std::vector<std::string>& transcripts() {
  static const std::string kHost = "Host: h\r\n";
  static const std::vector<std::string> all = {
      "GET /plaintext HTTP/1.1\r\n" + kHost + "\r\nHEAD /plaintext HTTP/1.1\r\n" + kHost + "\r\n",
      "POST /see?a=b HTTP/1.1\r\n" + kHost +
          "Content-Length: 5\r\n\r\nhelloGET /echo HTTP/1.1\r\n" + kHost + "\r\n",
      "POST /see HTTP/1.1\r\n" + kHost +
          "Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nT: t\r\n\r\n"
          "GET /status?n=304 HTTP/1.1\r\n" +
          kHost + "\r\n",
      "GET /park HTTP/1.1\r\n" + kHost + "\r\nGET /slow HTTP/1.1\r\n" + kHost +
          "\r\nGET /plaintext HTTP/1.1\r\n" + kHost + "\r\n",
      "GET /slow HTTP/1.0\r\n\r\n",
      "POST /echo HTTP/1.1\r\n" + kHost + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
      "GET /plaintext HTTP/1.1\r\n" + kHost + "\r\nPOST /echo HTTP/1.1\r\n" + kHost +
          "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      "GET /plaintext HTTP/1.1\r\n" + kHost + "X : y\r\n\r\n",
      "GET /park HTTP/1.1\r\n" + kHost + "\r\nGET /upgrade HTTP/1.1\r\n" + kHost + "\r\nbehind it",
      "GET /big?n=300000 HTTP/1.1\r\n" + kHost + "\r\nGET /big?n=300000 HTTP/1.1\r\n" + kHost +
          "\r\nGET /throw HTTP/1.1\r\n" + kHost + "\r\n",
  };
  return all;
}

struct ProbeService final : Service {
  HttpServer server;
  std::unique_ptr<Session> accept() override { return server.session(); }
};

std::string expected(const std::string& transcript) {
  HttpServer server;
  SessionDriver driver(server.session());
  driver.feed(transcript);
  driver.pass(1s);
  driver.eof();
  driver.pass(kDriven);
  return driver.output();
}

// Empty if it is as expected, else what is wrong.
std::string check(const std::string& transcript, std::size_t cut, const Blob& got) {
  const std::string wrong = difference(blob_of(expected(transcript)), got);
  if (wrong.empty()) return "";
  return fmt::format("cut at {}: {}\nof\n{}", cut, wrong, transcript);
}

void every_cut(const Target& target, World& world, const std::string& transcript) {
  const Blob bytes = blob_of(transcript);
  const std::size_t step =
      target.simulated() ? 1 : std::max<std::size_t>(1, bytes.size() / kRealCuts);
  std::vector<std::size_t> cuts;
  for (std::size_t cut = 0; cut < bytes.size(); cut += step) cuts.push_back(cut);
  Peers peers = world.connect_many(cuts.size());
  for (std::size_t i = 0; i < cuts.size(); ++i) peers[i]->send(Bytes(bytes).first(cuts[i]));
  world.pass(kPause);
  for (std::size_t i = 0; i < cuts.size(); ++i) {
    const Blob got = peers[i]->exchange_all(Bytes(bytes).subspan(cuts[i]));
    const std::string wrong = check(transcript, cuts[i], got);
    if (!wrong.empty()) FAIL_CHECK(wrong);
  }
}

CONFORMANCE(http_transcripts, "HTTP transcripts are answered alike, however they are cut",
            Over::all) {
  auto world = make_world(target);
  world->start(std::make_unique<ProbeService>());
  for (const std::string& transcript : transcripts()) every_cut(target, *world, transcript);
  world->finish();
}

CONFORMANCE(http_many, "HTTP connections at the same time do not get each other's answers",
            Over::all) {
  auto world = make_world(target);
  world->start(std::make_unique<ProbeService>());
  const std::size_t clients = std::min<std::size_t>(target.capacity(), scaled(50, 20));
  Peers peers = world->connect_many(clients);
  for (int round = 0; round < 5; ++round) {
    for (std::size_t i = 0; i < clients; ++i) {
      const std::string body = fmt::format("client {} round {}", i, round);
      peers[i]->send(blob_of(fmt::format(
          "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{}", body.size(), body)));
    }
    for (std::size_t i = 0; i < clients; ++i) {
      const std::string body = fmt::format("client {} round {}", i, round);
      const std::string answer = fmt::format("HTTP/1.1 200 OK\r\n{}Content-Length: {}\r\n\r\n{}",
                                             kDate, body.size(), body);
      CHECK(difference(blob_of(answer), peers[i]->read(answer.size())) == "");
    }
  }
  world->finish();
}

}  // namespace

TEST_CASE("the transcripts by hand: every byte alone gives the same answers") {
  for (const std::string& transcript : transcripts()) {
    HttpServer server;
    SessionDriver driver(server.session());
    driver.feed_each_byte(transcript);
    driver.pass(1s);
    driver.eof();
    driver.pass(kDriven);
    const std::string& got = driver.output();
    CHECK(check(transcript, 0, blob_of(got)) == "");
    CHECK(driver.closed());
    CHECK(got.size() > 100);
  }
}

}  // namespace echolab::test
