// One WebSocket session driven by hand, and what it says as lines of text.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/session_driver.hpp"
#include "tests/ws_client.hpp"

namespace echolab::test {

using namespace std::chrono_literals;
using Lines = std::vector<std::string>;

class WsLine {
 public:
  explicit WsLine(std::unique_ptr<Session> session, ConnId id = {1, 1, 0})
      : driver(std::move(session), id) {}

  void bytes(std::string_view text) { driver.feed(text); }
  // What has been said since the last time; "closed" or "aborted" at the end.
  Lines heard() {
    rest_ += driver.take_output();
    Lines lines = decode_frames(rest_);
    if (!rest_.empty()) lines.push_back("wrong: half a frame");
    if (!std::exchange(told_, driver.closed()) && driver.closed()) {
      lines.emplace_back(driver.aborted() ? "aborted" : "closed");
    }
    return lines;
  }

  // Output that was taken for something else, and is ours after all.
  void push_back_output(std::string_view text) { rest_ += text; }

  SessionDriver driver;

 private:
  std::string rest_;
  bool told_ = false;
};

}  // namespace echolab::test
