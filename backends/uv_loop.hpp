// A libuv loop with the handles through which its owner hears of all but sockets, work for libuv's
// threadpool, and buffers as libuv describes them. One thread, but for what says otherwise.
#pragma once

#include <uv.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>

#include "backends/outbox.hpp"
#include "backends/session.hpp"
#include "backends/sockets.hpp"

namespace echolab {

inline void check_uv(int rc, const char* what) {
  if (rc < 0) throw_errno(-rc, what);
}

// For one gathering write: what lies where. Returns the number of entries used.
using UvBuffers = std::array<uv_buf_t, 64>;
inline unsigned gather(const Out& out, UvBuffers& buffers) {
  const std::size_t used = std::min(out.pieces(), buffers.size());
  for (std::size_t i = 0; i < used; ++i) {
    const Bytes bytes = out.bytes(i);
    buffers[i] = {reinterpret_cast<char*>(const_cast<std::byte*>(bytes.data())), bytes.size()};
  }
  return static_cast<unsigned>(used);
}
inline unsigned gather(const Outbox& outbox, UvBuffers& buffers) {
  std::array<iovec, std::tuple_size_v<UvBuffers>> entries;
  const std::size_t used = outbox.gather(entries.data(), entries.size());
  for (std::size_t i = 0; i < used; ++i) {
    buffers[i] = {static_cast<char*>(entries[i].iov_base), entries[i].iov_len};
  }
  return static_cast<unsigned>(used);
}

// An Owner has, all on the loop:
//   void before_wait()   after_wait()   woken()   timer_fired()
template <class Owner>
class UvLoop {
 public:
  explicit UvLoop(Owner& owner) : owner_(owner) {
    // From 1.45 on libuv may batch epoll_ctl through io_uring, which would put the wrong label on
    // it.
    setenv("UV_USE_IO_URING", "0", 1);
    check_uv(uv_loop_init(&loop_), "cannot create a libuv loop");
    for (uv_handle_t* h : handles()) h->data = this;
    uv_timer_init(&loop_, &timer_);
    uv_prepare_init(&loop_, &prepare_);
    uv_check_init(&loop_, &check_);
    check_uv(uv_async_init(&loop_, &async_, [](uv_async_t* h) { of(h).owner_.woken(); }),
             "cannot create a libuv async handle");
    uv_prepare_start(&prepare_, [](uv_prepare_t* h) { of(h).owner_.before_wait(); });
    uv_check_start(&check_, [](uv_check_t* h) { of(h).owner_.after_wait(); });
  }
  UvLoop(const UvLoop&) = delete;
  UvLoop& operator=(const UvLoop&) = delete;
  // The owner has closed its own handles. Runs until libuv has let go of all of them and the pool
  // has done its work.
  ~UvLoop() {
    for (uv_handle_t* h : handles()) uv_close(h, nullptr);
    uv_run(&loop_, UV_RUN_DEFAULT);
    uv_loop_close(&loop_);
  }

  [[nodiscard]] uv_loop_t* get() { return &loop_; }
  void wake() noexcept { uv_async_send(&async_); }  // any thread

  // One libuv timer stands for the earliest deadline; kNever stops it.
  void set_timer(Time next) {
    if (next == armed_) return;
    armed_ = next;
    if (next == kNever) {
      uv_timer_stop(&timer_);
      return;
    }
    const Time now = std::chrono::steady_clock::now();
    const auto ms = std::chrono::ceil<std::chrono::milliseconds>(std::max(next, now) - now);
    uv_update_time(&loop_);
    uv_timer_start(
        &timer_,
        [](uv_timer_t* h) {
          of(h).armed_ = kNever;
          of(h).owner_.timer_fired();
        },
        static_cast<std::uint64_t>(ms.count()), 0);
  }

 private:
  template <class Handle>
  static UvLoop& of(Handle* handle) {
    return *static_cast<UvLoop*>(handle->data);
  }
  std::array<uv_handle_t*, 4> handles() {
    return {reinterpret_cast<uv_handle_t*>(&async_), reinterpret_cast<uv_handle_t*>(&timer_),
            reinterpret_cast<uv_handle_t*>(&prepare_), reinterpret_cast<uv_handle_t*>(&check_)};
  }

  Owner& owner_;
  uv_loop_t loop_{};
  uv_async_t async_{};
  uv_timer_t timer_{};
  uv_prepare_t prepare_{};
  uv_check_t check_{};
  Time armed_ = kNever;
};

// A Work is run() on a thread of the pool and then done() on the loop, which frees it.
template <class Work>
void queue_work(uv_loop_t* loop, std::unique_ptr<Work> work) {
  uv_work_t* request = &work->request;
  request->data = work.release();
  uv_queue_work(
      loop, request, [](uv_work_t* w) { static_cast<Work*>(w->data)->run(); },
      [](uv_work_t* w, int) {
        const std::unique_ptr<Work> mine(static_cast<Work*>(w->data));
        mine->done();
      });
}

// Creates libuv's pool, one for the process, unless it is there: with the calling thread's
// scheduling policy, which threads inherit.
inline void start_pool(uv_loop_t* loop) {
  struct Nothing {
    uv_work_t request{};
    void run() {}
    void done() {}
  };
  queue_work(loop, std::make_unique<Nothing>());
}

}  // namespace echolab
