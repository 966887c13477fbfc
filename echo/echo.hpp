// The echo service (RFC 862): what comes in goes out, in order.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "backends/session.hpp"

namespace echolab {

struct Echo final : Session {
  void on_bytes(Out& out, Input in, Time) override { out.forward(in); }
};

// Answers each chunk a fixed time after it came: an upstream that takes its time. Order is kept,
// and nothing is lost when the peer or the server stops: what is due later is sent first.
class DelayedEcho final : public Session {
 public:
  // A client that sends more than this within one delay, in bytes, gets the oldest chunks early:
  // they move to the outbox, where backpressure stops reading.
  static constexpr std::size_t kMost = 1024 * 1024;

  explicit DelayedEcho(Duration delay) : delay_(delay) {}

  void on_bytes(Out& out, Input in, Time now) override {
    waiting_.push_back({now + delay_, {in.begin(), in.end()}});
    size_ += in.size();
    while (size_ > kMost) send_first(out);
    go_on(out);
  }
  void on_deadline(Out& out, Time now) override {
    while (!waiting_.empty() && waiting_.front().due <= now) send_first(out);
    go_on(out);
  }
  void on_eof(Out& out, Time) override {
    ending_ = true;
    go_on(out);
  }
  void on_drain(Out& out, Time now) override { on_eof(out, now); }

 private:
  struct Chunk {
    Time due;
    std::vector<std::byte> bytes;
  };

  void send_first(Out& out) {
    out.write(waiting_.front().bytes);
    size_ -= waiting_.front().bytes.size();
    waiting_.pop_front();
  }
  void go_on(Out& out) {
    if (!waiting_.empty()) {
      out.wake_at(waiting_.front().due);
    } else if (ending_) {
      out.close();
    }
  }

  Duration delay_;
  std::deque<Chunk> waiting_;
  std::size_t size_ = 0;  // bytes in it
  bool ending_ = false;
};

// Burns CPU before each answer: a known extra cost, which the harness must find (scripts/aa).
class SpinningEcho final : public Session {
 public:
  explicit SpinningEcho(std::uint64_t turns) : turns_(turns) {}

  static void spin(std::uint64_t turns) {
    for (std::uint64_t i = 0; i < turns; ++i) asm volatile("" ::: "memory");  // not optimised away
  }
  void on_bytes(Out& out, Input in, Time) override {
    spin(turns_);
    out.forward(in);
  }

 private:
  std::uint64_t turns_;
};

class EchoService final : public Service {
 public:
  // `spin_turns`: of SpinningEcho, for each chunk. Zero: none; with a delay nothing spins.
  explicit EchoService(Duration delay = {}, std::uint64_t spin_turns = 0)
      : delay_(delay), spin_turns_(spin_turns) {}
  std::unique_ptr<Session> accept() override {
    if (delay_ > Duration::zero()) return std::make_unique<DelayedEcho>(delay_);
    if (spin_turns_ > 0) return std::make_unique<SpinningEcho>(spin_turns_);
    return std::make_unique<Echo>();
  }

 private:
  Duration delay_;
  std::uint64_t spin_turns_;
};

}  // namespace echolab
