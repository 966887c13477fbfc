// A backend made of loops: one thread and one listener each, spread by SO_REUSEPORT. What the
// epoll, io_uring and libuv models share around their loops and nothing of what is inside them.
//
// A Loop has:
//   static constexpr Listener::Mode kListener
//   Loop(Listener, std::uint16_t shard, const Options&, const Config&)   may throw
//   void run(Service&)                       until drained
//   void stop(Duration grace) noexcept       any thread
//   void push(std::span<const ConnId>, const Post&) noexcept             any thread
//   const Counters& counters() const;  std::vector<Feature> features() const;
#pragma once

#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "backends/backend.hpp"
#include "backends/sockets.hpp"

namespace echolab {

template <class Loop, class Config>
class LoopBackend final : public Backend {
 public:
  LoopBackend(const Options& options, const Config& config) {
    std::uint16_t port = options.port;
    if (options.threads > 1 && port != 0) Listener::require_free(options.host, port);
    for (unsigned i = 0; i < options.threads; ++i) {
      Listener listener(options.host, port, Loop::kListener, options.threads > 1);
      port = listener.port();
      loops_.push_back(std::make_unique<Loop>(std::move(listener), static_cast<std::uint16_t>(i),
                                              options, config));
    }
    port_ = port;
  }

  [[nodiscard]] std::uint16_t port() const noexcept override { return port_; }

  void run(Service& service) override {
    std::exception_ptr failure;
    std::mutex failure_lock;
    const auto fail = [&](const std::exception_ptr& why) {
      {
        const std::scoped_lock lock(failure_lock);
        if (!failure) failure = why;
      }
      stop(Duration::zero());
    };
    const auto run_loop = [&](Loop& loop) {
      try {
        loop.run(service);
      } catch (...) {
        fail(std::current_exception());
      }
    };
    {
      std::vector<std::jthread> others;
      try {
        for (std::size_t i = 1; i < loops_.size(); ++i) {
          others.emplace_back([&run_loop, this, i] { run_loop(*loops_[i]); });
        }
        run_loop(*loops_[0]);
      } catch (const std::system_error& error) {  // a loop without a thread answers nobody
        fail(std::make_exception_ptr(
            std::system_error(error.code(), "cannot start a thread for each loop")));
      }
    }
    if (failure) std::rethrow_exception(failure);
  }

  void stop(Duration grace) noexcept override {
    for (auto& loop : loops_) loop->stop(grace);
  }

  void post(std::span<const ConnId> ids, const Post& post) noexcept override {
    for (auto& loop : loops_) loop->push(ids, post);
  }

  [[nodiscard]] Stats stats() const override {
    Stats s;
    for (const auto& loop : loops_) s.add(loop->counters());
    s.features = loops_[0]->features();
    return s;
  }

 private:
  std::vector<std::unique_ptr<Loop>> loops_;
  std::uint16_t port_ = 0;
};

// When to stop, set once from any thread and read by one loop.
class StopSignal {
 public:
  // True for the first call.
  bool set(Duration grace) noexcept {
    const std::scoped_lock lock(mutex_);
    if (requested_.load(std::memory_order_relaxed)) return false;
    until_ = std::chrono::steady_clock::now() + grace;
    requested_.store(true);
    return true;
  }
  [[nodiscard]] bool requested() const noexcept { return requested_.load(); }
  [[nodiscard]] Time until() const noexcept {  // only once requested
    const std::scoped_lock lock(mutex_);
    return until_;
  }

 private:
  mutable std::mutex mutex_;
  std::atomic<bool> requested_ = false;
  Time until_{};
};

}  // namespace echolab
