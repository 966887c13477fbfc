// libFuzzer target: any bytes as what a client sends on a WebSocket, with compression agreed on, to
// the topics (first byte even) or to the echo. They are fed at once and in cuts that depend on the
// bytes; what comes out must be the same, and made of frames that a server may send.
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <random>

#include "tests/push_service.hpp"

namespace echolab::test {
namespace {

// Small enough to be reached by inputs of a few hundred bytes.
constexpr std::size_t kMessage = 300;

Lines run(bool echo, std::string_view input, std::span<const std::size_t> cuts) {
  PushService service;
  service.context.websocket.message = kMessage;
  service.context.push.subscriptions = 2;
  Lines lines;
  {
    const auto line = service.connect(echo ? "/ws/echo" : "/ws", true);
    line->driver.feed(input, cuts);
    // Not before all is fed: the order of answers and messages may depend on the cuts.
    service.deliver();
    line->driver.pass(1h);  // longer than anything may take
    lines = line->heard();
  }
  if (service.context.connections != 0 || service.hub.totals().subscriptions != 0) std::abort();
  return lines;
}

std::vector<std::size_t> cuts_of(std::string_view input) {
  std::minstd_rand random(static_cast<unsigned>(std::hash<std::string_view>()(input)));
  const std::size_t longest = 1 + random() % 40;
  std::vector<std::size_t> cuts;
  for (std::size_t at = 0; (at += 1 + random() % longest) < input.size();) cuts.push_back(at);
  return cuts;
}

void show(const Lines& lines) {
  for (const std::string& line : lines) std::cerr << "  " << line << '\n';
}

}  // namespace
}  // namespace echolab::test

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace echolab::test;
  if (size == 0) return 0;
  const bool echo = data[0] % 2 != 0;
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  const Lines whole = run(echo, input, {});
  const Lines cut = run(echo, input, cuts_of(input));
  const bool ends = !whole.empty() && (whole.back() == "closed" || whole.back() == "aborted");
  bool wrong = whole != cut || !ends;
  for (const std::string& line : whole) wrong = wrong || line.starts_with("wrong: ");
  if (wrong) {
    std::cerr << "at once:\n";
    show(whole);
    std::cerr << "in cuts:\n";
    show(cut);
    std::abort();
  }
  return 0;
}
