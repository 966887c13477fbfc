// Stands between a backend and the sessions of a test, and writes down every call that
// backends/session.hpp does not allow. Every conformance test runs under this watch.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "backends/session.hpp"

namespace echolab::test {

// Shared by all sessions of one run; any thread.
class Watch {
 public:
  void violation(const std::string& what);
  [[nodiscard]] std::vector<std::string> violations() const;

  // Counted relaxed, so that counting orders nothing that the backend does not order.
  using Counter = std::atomic<std::int64_t>;
  Counter accepted = 0;   // sessions made
  Counter opened = 0;     // on_open called
  Counter closed = 0;     // on_close called
  Counter destroyed = 0;  // sessions gone
  Counter posts = 0;      // on_post calls
  Counter deadlines = 0;  // on_deadline calls
  Counter replies = 0;    // on_reply calls
  Counter rooms = 0;      // on_room calls
  Counter failed = 0;     // on_close with an error

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> violations_;
};

class WatchedService final : public Service {
 public:
  // With `real_time`, a callback's time must not lie in the future either.
  WatchedService(std::unique_ptr<Service> inner, Watch& watch, bool real_time)
      : inner_(std::move(inner)), watch_(watch), real_time_(real_time) {}
  std::unique_ptr<Session> accept() override;
  [[nodiscard]] bool pushes() const override { return inner_->pushes(); }

 private:
  std::unique_ptr<Service> inner_;
  Watch& watch_;
  bool real_time_;
};

}  // namespace echolab::test
