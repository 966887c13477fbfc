// libFuzzer target: any bytes as an HTTP connection. They are fed twice, at once and in cuts that
// depend on the bytes; what comes out must be the same, every waiter must be gone at the end, and
// nothing may read what is not its own.
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <random>

#include "tests/http_probe.hpp"
#include "tests/session_driver.hpp"

namespace echolab::test {
namespace {

// Small enough to be reached by inputs of a few hundred bytes.
patterns::HttpLimits fuzz_limits() {
  patterns::HttpLimits limits;
  limits.target = 64;
  limits.header = 512;
  limits.fields = 16;
  limits.body = 256;
  limits.pipelined = 1024;
  return limits;
}

// The longest time that anything may take here, and more answers than an input has requests.
constexpr Duration kLong = 100s;
constexpr int kAnswers = 1000;

std::string run(std::string_view input, std::span<const std::size_t> cuts) {
  HttpServer server;
  server.context.limits = fuzz_limits();
  std::string output;
  {
    SessionDriver driver(server.session());
    driver.feed(input, cuts);
    for (int i = 0; i < kAnswers && server.probe.waiting > 0; ++i) {
      driver.post({});
      driver.pass(20ms);
      if (!driver.calls().empty()) driver.reply(driver.calls().back().id, {}, "pong");
    }
    if (input.size() % 2 == 0) driver.eof();
    driver.pass(kLong);
    output = driver.output() + (driver.aborted() ? "(aborted)" : driver.closed() ? "(closed)" : "");
  }
  if (server.probe.waiting != 0) std::abort();
  return output;
}

std::vector<std::size_t> cuts_of(std::string_view input) {
  std::minstd_rand random(static_cast<unsigned>(std::hash<std::string_view>()(input)));
  const std::size_t longest = 1 + random() % 40;
  std::vector<std::size_t> cuts;
  for (std::size_t at = 0; (at += 1 + random() % longest) < input.size();) cuts.push_back(at);
  return cuts;
}

}  // namespace
}  // namespace echolab::test

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace echolab::test;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::string whole = run(input, {});
  const std::string cut = run(input, cuts_of(input));
  if (whole != cut) {
    std::cerr << "at once:\n" << whole << "\nin cuts:\n" << cut << '\n';
    std::abort();
  }
  return 0;
}
