// One connection of a libuv loop, and one call of its session's to an upstream.
#pragma once

#include <uv.h>

#include <memory>

#include "backends/chunks.hpp"
#include "backends/events.hpp"
#include "backends/outbox.hpp"
#include "backends/session.hpp"
#include "backends/upstreams.hpp"

namespace echolab {

// What each request touches comes first and lies together.
template <class Loop>
struct UvConnection {
  ConnId id;
  bool working = false;  // the pool has the session
  bool reading = false;  // uv_read_start is in force
  bool eof = false;
  bool paused = false;     // not reading: too much is waiting to be sent
  bool closing = false;    // the session has closed; input is discarded
  bool lingering = false;  // our FIN is sent, the peer's is awaited
  bool ended = false;      // being closed
  bool closed = false;     // libuv has let go of the handle
  bool aborted = false;    // by the session: the peer is to see a reset
  bool awaits_room = false;
  bool offered = false;                // on_room is on its way
  std::uint32_t lent = Chunks::kNone;  // given to libuv by alloc_cb
  Loop* loop = nullptr;
  std::unique_ptr<Session> session;
  Outbox outbox;
  std::size_t writing = 0;  // bytes of the write in flight
  uv_tcp_t tcp{};
  Events inbox;            // for the next job
  Events job;              // with the pool, if working
  std::size_t queued = 0;  // bytes that waited to be sent when the job was handed over
  uv_work_t work{};

  std::size_t inbox_bytes = 0;  // of posts in the inbox
  uv_write_t write{};
  uv_shutdown_t shutdown{};
  std::size_t unsent = 0;  // if closing: left() when the time to flush it began
  std::size_t calls = 0;   // with the pool
  Cancellation cancellation;
  std::error_code error;

  // The connection whose handle or request it is.
  template <class Handle>
  static UvConnection& of(const Handle* handle) {
    return *static_cast<UvConnection*>(handle->data);
  }
  uv_stream_t* stream() { return reinterpret_cast<uv_stream_t*>(&tcp); }
  // Bytes that the kernel has not taken.
  [[nodiscard]] std::size_t left() {
    return outbox.size() - writing + uv_stream_get_write_queue_size(stream());
  }
};

// A call, while it is with the pool.
template <class Loop>
struct UvCalling {
  UvCalling(UvConnection<Loop>& caller, Out::Call&& call) : c(caller), pending(std::move(call)) {}
  UvConnection<Loop>& c;
  const PendingCall pending;
  std::unique_ptr<Answer> answer;
  Counters counters;
  uv_work_t request{};
  void run() {
    answer = std::make_unique<Answer>(
        c.loop->upstreams_.call(pending, Upstreams::kNobody, c.cancellation, counters));
  }
  void done() { c.loop->answered(*this); }
};

}  // namespace echolab
