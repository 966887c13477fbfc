// One WebSocket session without a backend: the test is its clock, its network and its peer.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "patterns/websocket.hpp"
#include "tests/catch.hpp"
#include "tests/ws_client.hpp"

namespace echolab::test {

using namespace std::chrono_literals;

class WsLine {
 public:
  // A session that is open.
  explicit WsLine(std::unique_ptr<Session> session, ConnId id = {1, 1, 0})
      : session_(std::move(session)) {
    call([&](Out& out) { session_->on_open(out, id, now); });
  }
  WsLine(const WsLine&) = delete;
  WsLine& operator=(const WsLine&) = delete;
  ~WsLine() { session_->on_close({}); }

  // Bytes from the peer. A buffer of its own, exactly as long, so that a session that keeps its
  // input is found out.
  void bytes(std::string_view text) {
    std::vector<std::byte> input(text.size());
    std::copy(text.begin(), text.end(), reinterpret_cast<char*>(input.data()));
    call([&](Out& out) { session_->on_bytes(out, input, now); });
  }
  void eof() {
    call([&](Out& out) { session_->on_eof(out, now); });
  }
  void drain() {
    call([&](Out& out) { session_->on_drain(out, now); });
  }
  void post(const Post& post) {
    call([&](Out& out) { session_->on_post(out, post, now); });
  }
  void room() {
    wants_room = false;
    call([&](Out& out) { session_->on_room(out, now); });
  }
  // Time goes by; deadlines ring on the way.
  void pass(Duration duration) {
    const Time until = now + duration;
    while (deadline <= until && !over()) {
      now = std::max(now, std::exchange(deadline, kNever));
      ++wakeups;
      call([&](Out& out) { session_->on_deadline(out, now); });
    }
    now = until;
  }
  [[nodiscard]] bool over() const { return closed || aborted; }
  // What has been said since the last time; "closed" or "aborted" at the end.
  std::vector<std::string> heard() {
    std::vector<std::string> lines = decode_frames(sent_);
    if (!sent_.empty()) lines.push_back("wrong: half a frame");
    if (std::exchange(told_, over()) != over()) lines.emplace_back(closed ? "closed" : "aborted");
    return lines;
  }

  Time now{1h};
  Time deadline = kNever;
  std::size_t queued = 0;  // what the session is told that the kernel has not taken
  std::size_t wakeups = 0;
  bool wants_room = false;
  bool closed = false, aborted = false;

 private:
  template <typename Callback>
  void call(Callback callback) {
    if (over()) return;
    Out out;
    out.set_queued(queued);
    callback(out);
    for (std::size_t i = 0; i < out.pieces(); ++i) {
      const Bytes piece = out.bytes(i);
      sent_.append(reinterpret_cast<const char*>(piece.data()), piece.size());
    }
    if (out.deadline()) deadline = *out.deadline();
    wants_room = wants_room || out.awaits_room();
    aborted = out.aborting();
    closed = out.closing() && !aborted;
  }

  std::unique_ptr<Session> session_;
  std::string sent_;
  bool told_ = false;
};

using Lines = std::vector<std::string>;

}  // namespace echolab::test
