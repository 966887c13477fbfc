// The listening socket of a libuv loop. Watched by a poll handle and accepted by ourselves: libuv's
// own accept spins for good once its reserve descriptor is lost to another thread at the limit.
//
// An Owner has, on the loop:
//   void accepted(Fd)   a non-blocking connection
#pragma once

#include <uv.h>

#include <utility>

#include "backends/session.hpp"
#include "backends/sockets.hpp"
#include "backends/stats.hpp"
#include "backends/uv_loop.hpp"

namespace echolab {

template <class Owner>
class UvAcceptor {
 public:
  UvAcceptor(Owner& owner, Listener listener, Counters& counters)
      : owner_(owner), listener_(std::move(listener)), counters_(counters) {
    poll_.data = this;
  }
  UvAcceptor(const UvAcceptor&) = delete;
  UvAcceptor& operator=(const UvAcceptor&) = delete;

  // Called once; then shut() must come before the loop is closed.
  void start(uv_loop_t* loop) {
    check_uv(uv_poll_init(loop, &poll_, listener_.fd()), "cannot give the listener to libuv");
    listen();
  }
  // When to call listen() again, as no descriptor was left.
  [[nodiscard]] Time again() const { return again_; }
  void listen() {
    again_ = kNever;
    uv_poll_start(&poll_, UV_READABLE,
                  [](uv_poll_t* p, int, int) { static_cast<UvAcceptor*>(p->data)->accept_all(); });
  }
  // The owner is asked to accept no more.
  void shut() {
    again_ = kNever;
    auto* handle = reinterpret_cast<uv_handle_t*>(&poll_);
    if (uv_is_closing(handle) == 0) uv_close(handle, nullptr);
    listener_ = Listener();
  }

 private:
  // Connections taken between two looks at the others. The rest is reported again.
  static constexpr int kPerTurn = 64;

  void accept_all() {
    for (int i = 0; i < kPerTurn; ++i) {
      counters_.add(Count::sys_accept);
      Fd fd = listener_.accept(SOCK_NONBLOCK);
      if (fd) {
        owner_.accepted(std::move(fd));
      } else if (errno == EMFILE || errno == ENFILE) {
        counters_.refuse();
      } else if (errno != EINTR && errno != ECONNABORTED) {
        counters_.add(Count::eagain);
        if (errno != ENOBUFS && errno != ENOMEM) return;
        uv_poll_stop(&poll_);
        again_ = std::chrono::steady_clock::now() + Listener::kRetry;
        return;
      }
    }
  }

  Owner& owner_;
  Listener listener_;
  Counters& counters_;
  uv_poll_t poll_{};
  Time again_ = kNever;
};

}  // namespace echolab
