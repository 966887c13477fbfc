// libuv: a loop and a threadpool. The loop does the I/O, a pool thread runs the session's
// callback, and the loop sends what came of it: the shape of a Node.js server whose handlers may
// block.
//
// Mechanism   uv_run waits in epoll for the sockets, reads a chunk, and hands it to the pool with
//             uv_queue_work: a mutex, a condition variable and a queue. The pool thread calls the
//             session and wakes the loop through an eventfd; the after-work callback, on the loop,
//             writes. One job per connection at a time keeps the session's calls in order; what
//             comes in meanwhile waits in its inbox and makes up the next job.
// Kernel      any that libuv runs on. Its io_uring use is switched off: this is the epoll libuv.
//             The pool is under SCHED_BATCH (2.6.16): where it shares a CPU with the loop, each
//             job would preempt the loop that hands it over. The loop is scheduled as in all
//             models.
// Buffers     A pooled chunk from alloc_cb, lent to the session, written back from itself, and
//             returned to the pool when the write is done.
// cost: epoll_wait 2, read 2, write 2
//             Half of them are the eventfd of the way back. The pool's futex calls come on top:
//             one to wake the worker, one for it to sleep, more when they collide.
// Calls       A pool thread blocks until the upstream has answered, the loop goes on: as many calls
//             wait at a time as the pool has threads.
// Bad at      Short handlers: the hop costs more than most of them do. The pool is small (four
//             threads unless UV_THREADPOOL_SIZE says otherwise) and shared with file I/O and DNS.
//
// libuv:inline calls the session on the loop; the difference is the price of the hop. libuv:preempt
// leaves the pool its default policy, as Node.js does.
// libuv does not watch a socket that it neither reads nor writes: a reset is then noticed by the
// next write only.

#include <algorithm>
#include <array>
#include <cstdlib>

#include "backends/batch_policy.hpp"
#include "backends/chunks.hpp"
#include "backends/connections.hpp"
#include "backends/events.hpp"
#include "backends/loops.hpp"
#include "backends/mailbox.hpp"
#include "backends/models.hpp"
#include "backends/outbox.hpp"
#include "backends/timers.hpp"
#include "backends/upstreams.hpp"
#include "backends/uv_acceptor.hpp"
#include "backends/uv_connection.hpp"
#include "backends/uv_loop.hpp"

namespace echolab {
namespace {

constexpr std::size_t kInboxChunks = 4;  // chunks that may wait for the pool, per connection

struct LibuvConfig {
  bool pool = true;
  bool batch = true;  // SCHED_BATCH for the pool
};

class LibuvLoop {
 public:
  static constexpr Listener::Mode kListener = Listener::Mode::nonblocking;

  LibuvLoop(Listener listener, std::uint16_t shard, const Options& options,
            const LibuvConfig& config);
  ~LibuvLoop() { acceptor_.shut(); }
  LibuvLoop(const LibuvLoop&) = delete;
  LibuvLoop& operator=(const LibuvLoop&) = delete;
  void run(Service& service);
  void stop(Duration grace) noexcept;
  void push(std::span<const ConnId> ids, const Post& post) noexcept;
  [[nodiscard]] const Counters& counters() const { return counters_; }
  [[nodiscard]] std::vector<Feature> features() const;

 private:
  // ---- Connection -----------------------------------------------------------------------------
  using Connection = UvConnection<LibuvLoop>;
  using Calling = UvCalling<LibuvLoop>;
  friend Calling;
  friend UvLoop<LibuvLoop>;
  friend UvAcceptor<LibuvLoop>;
  void before_wait();
  void after_wait();
  void timer_fired();
  void woken();

  void accepted(Fd fd);
  void read(Connection& c);
  void received(Connection& c, ssize_t n);
  Event& add(Connection& c, Event::Kind kind);
  void dispatch(Connection& c);
  void call_here(Connection& c);
  Time batch_time();
  void worked(Connection& c);
  void called(Connection& c, Event& e);
  void settle(Connection& c);
  void apply(Connection& c, Event& e);
  void flush(Connection& c);
  void written(Connection& c, int status);
  void await_room(Connection& c);
  void give_room();
  void ask(Connection& c, Out::Call&& call);
  void answered(Calling& calling);
  void finish(Connection& c);
  void await_flush(Connection& c);
  void end(Connection& c, std::error_code error);
  void overflow(Connection& c);
  void release(Connection& c);
  void check_stop();

  const LibuvConfig config_;
  bool batch_granted_ = false;
  const Limits limits_;
  const std::uint16_t shard_;
  Chunks chunks_;
  Event event_;  // inline: being served
  std::vector<Events> spare_;
  Connections<Connection> connections_;
  Timers timers_;
  Upstreams upstreams_;
  std::vector<ConnId> roomy_;  // on_room is due, on the next turn of the loop
  Mailbox mailbox_;
  StopSignal stop_;
  Counters counters_;
  UvAcceptor<LibuvLoop> acceptor_;
  Service* service_ = nullptr;
  std::size_t events_ = 0;  // callbacks since the last wait
  Time now_{};
  bool clock_read_ = false;  // now_ is of this batch
  bool woken_ = false;       // the pool has woken the loop since the last wait
  bool draining_ = false;
  std::vector<Mailbox::Item> items_;
  UvLoop<LibuvLoop> loop_{*this};  // goes first, while its handles' memory is still there
};

// ---- setup ------------------------------------------------------------------------------------

LibuvLoop::LibuvLoop(Listener listener, std::uint16_t shard, const Options& options,
                     const LibuvConfig& config)
    : config_(config),
      limits_(options.limits),
      shard_(shard),
      acceptor_(*this, std::move(listener), counters_) {
  counters_.on_refused = options.on_refused;
  if (config_.pool) {
    const BatchPolicy policy(config_.batch);
    batch_granted_ = BatchPolicy::in_force();
    start_pool(loop_.get());
  }
  acceptor_.start(loop_.get());
}

std::vector<Feature> LibuvLoop::features() const {
  const char* size = std::getenv("UV_THREADPOOL_SIZE");
  return {{"threadpool", config_.pool, config_.pool,
           config_.pool ? std::string(size != nullptr ? size : "4") + " threads" : ""},
          {"sched_batch", config_.batch, batch_granted_,
           config_.batch && !batch_granted_ ? "another policy is set, or none may be" : ""}};
}

// ---- accept -----------------------------------------------------------------------------------

void LibuvLoop::accepted(Fd fd) {
  Connection& c = connections_.add(shard_);
  c.loop = this;
  c.tcp.data = c.work.data = c.write.data = c.shutdown.data = &c;
  uv_tcp_init(loop_.get(), &c.tcp);
  ++events_;
  if (uv_tcp_open(&c.tcp, fd.get()) < 0) {
    counters_.refuse();
    return end(c, {});
  }
  fd.release();
  c.session = service_->accept();
  counters_.add(Count::accepted);
  counters_.add(Count::sys_epoll_ctl);
  add(c, Event::Kind::open);
  dispatch(c);
  read(c);
}

// ---- receive ----------------------------------------------------------------------------------

// Starts or stops reading, as the connection's state asks for.
void LibuvLoop::read(Connection& c) {
  const bool wanted =
      !c.ended && !c.eof && !c.paused && (c.closing || c.inbox.size() < kInboxChunks);
  if (wanted == c.reading) return;
  c.reading = wanted;
  if (!wanted) {
    uv_read_stop(c.stream());
    return;
  }
  uv_read_start(
      c.stream(),
      [](uv_handle_t* h, std::size_t, uv_buf_t* buffer) {
        Connection& mine = Connection::of(h);
        Chunks& chunks = mine.loop->chunks_;
        mine.lent = chunks.take();
        *buffer = uv_buf_init(reinterpret_cast<char*>(chunks.data(mine.lent)), Chunks::kSize);
      },
      [](uv_stream_t* s, ssize_t n, const uv_buf_t*) {
        Connection& mine = Connection::of(s);
        mine.loop->received(mine, n);
      });
}

void LibuvLoop::received(Connection& c, ssize_t n) {
  counters_.add(Count::sys_recv);
  ++events_;
  const std::uint32_t chunk = std::exchange(c.lent, Chunks::kNone);
  if (n <= 0 || c.closing) {
    if (chunk != Chunks::kNone) chunks_.give_back(chunk);
    if (n == 0) counters_.add(Count::eagain);
    if (n >= 0) return;
    c.reading = false;
    if (n != UV_EOF) return end(c, error_of(static_cast<int>(-n)));
    c.eof = true;
    if (c.closing) return c.lingering ? end(c, {}) : void();
    add(c, Event::Kind::eof);
  } else {
    counters_.add(Count::inputs);
    counters_.add(Count::bytes_in, static_cast<std::size_t>(n));
    Event& e = add(c, Event::Kind::bytes);
    e.chunk = chunk;
    e.input = Input(chunks_.data(chunk), static_cast<std::size_t>(n));
    e.pin = Pin(chunks_, chunk);
  }
  dispatch(c);
}

// ---- call the session -------------------------------------------------------------------------

// What the caller then fills and hands over by dispatch(). Lists are lent to connections that have
// events, most recently used first.
Event& LibuvLoop::add(Connection& c, Event::Kind kind) {
  if (!config_.pool) return event_.begin(kind);
  if (c.inbox.unused() && !spare_.empty()) {
    c.inbox.swap(spare_.back());
    spare_.pop_back();
  }
  return c.inbox.add(kind);
}

// Sends the inbox to the pool, one job at a time, or serves the event here.
void LibuvLoop::dispatch(Connection& c) {
  if (!config_.pool) return call_here(c);
  if (c.working || c.ended || c.inbox.size() == 0) return read(c);
  c.inbox.swap(c.job);
  c.inbox_bytes = 0;
  c.queued = c.outbox.size();
  c.working = true;
  counters_.add(Count::pool_jobs);
  uv_queue_work(
      loop_.get(), &c.work,
      [](uv_work_t* w) {  // on a pool thread: the session is this job's until it returns
        Connection& mine = Connection::of(w);
        mine.job.call(*mine.session, mine.id, std::chrono::steady_clock::now(), mine.queued,
                      mine.loop->limits_.low_water);
      },
      [](uv_work_t* w, int) {
        Connection& mine = Connection::of(w);
        LibuvLoop& l = *mine.loop;
        if (!std::exchange(l.woken_, true)) l.counters_.add(Count::sys_wake, 2);
        ++l.events_;
        l.worked(mine);
      });
  read(c);
}

void LibuvLoop::call_here(Connection& c) {
  if (event_.kind == Event::Kind::none) return;
  event_.call(*c.session, c.id, batch_time(), c.outbox.size(), limits_.low_water);
  called(c, event_);
  event_.clear();
  if (!c.ended) settle(c);
}

// On the loop the clock is read once for all that one wait has brought.
Time LibuvLoop::batch_time() {
  if (!std::exchange(clock_read_, true)) now_ = std::chrono::steady_clock::now();
  return now_;
}

// Back on the loop.
void LibuvLoop::worked(Connection& c) {
  c.working = false;
  for (Event& e : c.job) called(c, e);
  c.job.clear();
  spare_.emplace_back().swap(c.job);
  if (c.ended) return release(c);
  settle(c);
  if (!c.closing) return dispatch(c);
  c.inbox.count(counters_);
  c.inbox.clear();
}

void LibuvLoop::called(Connection& c, Event& e) {
  e.count(counters_);
  if (e.kind == Event::Kind::room) {
    c.offered = false;
    c.awaits_room = !e.called;
  }
  if (e.called && !c.ended) apply(c, e);
}

void LibuvLoop::settle(Connection& c) {
  await_room(c);
  read(c);
}

// ---- send -------------------------------------------------------------------------------------

// Carries out what one callback asked for.
void LibuvLoop::apply(Connection& c, Event& e) {
  Out& out = e.out;
  if (out.aborting()) {
    c.aborted = true;
    return end(c, std::make_error_code(std::errc::connection_aborted));
  }
  if (out.total() > 0) {
    std::size_t sent = 0;
    if (c.outbox.empty()) {
      UvBuffers buffers;
      const unsigned used = gather(out, buffers);
      counters_.add(Count::sys_send);
      const int n = uv_try_write(c.stream(), buffers.data(), used);
      if (n < 0 && n != UV_EAGAIN) return end(c, error_of(-n));
      if (n == UV_EAGAIN) counters_.add(Count::eagain);
      sent = static_cast<std::size_t>(std::max(n, 0));
      counters_.add(Count::bytes_out, sent);
      if (sent < out.total()) counters_.add(Count::short_sends);
    }
    Outbox::Source source;
    if (e.chunk != Chunks::kNone) source = {&chunks_, e.chunk, limits_.pinned};
    counters_.add(Count::bytes_copied, c.outbox.take(out, sent, source));
  }
  if (const auto when = out.deadline()) {
    timers_.set(c.id.slot, *when);
    c.inbox.forget_deadlines();
  }
  if (c.outbox.size() > limits_.outbox_limit) return overflow(c);
  if (!c.paused && c.outbox.size() >= limits_.high_water) {
    c.paused = true;
    counters_.add(Count::pauses);
  }
  if (out.awaits_room()) c.awaits_room = true;
  if (out.closing()) {
    c.closing = true;
    c.cancellation.cancel();
  } else {
    for (Out::Call& call : out.calls()) ask(c, std::move(call));
  }
  flush(c);
  if (c.closing && !c.lingering && !c.ended) await_flush(c);
}

// One write at a time, from where the bytes lie; libuv waits for room and goes on after short ones.
void LibuvLoop::flush(Connection& c) {
  if (c.ended || c.writing > 0) return;
  if (c.outbox.empty()) {
    if (c.closing && !c.lingering) finish(c);
    return;
  }
  UvBuffers buffers;
  const unsigned used = gather(c.outbox, buffers);
  for (unsigned i = 0; i < used; ++i) c.writing += buffers[i].len;
  counters_.add(Count::sys_send);
  const int rc =
      uv_write(&c.write, c.stream(), buffers.data(), used, [](uv_write_t* w, int status) {
        Connection& mine = Connection::of(w);
        mine.loop->written(mine, status);
      });
  if (rc < 0) {
    c.writing = 0;
    end(c, error_of(-rc));
  }
}

void LibuvLoop::written(Connection& c, int status) {
  ++events_;
  const std::size_t n = std::exchange(c.writing, 0);
  if (c.ended) return;
  if (status < 0) return end(c, error_of(-status));
  counters_.add(Count::bytes_out, n);
  c.outbox.consume(n);
  if (c.paused && c.outbox.size() <= limits_.low_water) {
    c.paused = false;
    read(c);
  }
  await_room(c);
  flush(c);
}

// ---- post -------------------------------------------------------------------------------------

void LibuvLoop::push(std::span<const ConnId> ids, const Post& post) noexcept {
  if (mailbox_.push(ids, shard_, post)) loop_.wake();
}

// All posts that are there first, so that one job per connection carries them.
void LibuvLoop::woken() {
  counters_.add(Count::sys_wake, std::exchange(woken_, true) ? 1 : 2);
  mailbox_.take(items_);
  const auto each = [this](auto&& f) {
    for (const Mailbox::Item& item : items_) {
      for (const ConnId& id : item.to) f(connections_.find(id.slot, id.generation), item.post);
    }
  };
  each([this](Connection* c, const Post& post) {
    if (c == nullptr || c->ended || c->closing) return counters_.add(Count::posts_stale);
    add(*c, Event::Kind::post).post = post;
    if (!config_.pool) return dispatch(*c);
    c->inbox_bytes += post.frame ? post.frame->size() : 0;
    if (c->inbox_bytes + c->outbox.size() > limits_.outbox_limit) overflow(*c);
  });
  if (!config_.pool) return;
  each([this](Connection* c, const Post&) {
    if (c != nullptr) dispatch(*c);
  });
}

// ---- deadlines --------------------------------------------------------------------------------

void LibuvLoop::timer_fired() {
  clock_read_ = false;
  give_room();
  std::uint32_t slot = 0;
  while (timers_.pop(batch_time(), slot)) {
    Connection& c = *connections_.at(slot);
    if (!c.closing) {
      add(c, Event::Kind::deadline);
      dispatch(c);
    } else if (c.lingering) {
      end(c, {});
    } else if (c.left() < c.unsent) {
      await_flush(c);
    } else {
      end(c, std::make_error_code(std::errc::timed_out));
    }
  }
  if (acceptor_.again() <= batch_time()) acceptor_.listen();
}

// One libuv timer stands for the earliest of all.
void LibuvLoop::before_wait() {
  clock_read_ = false;
  check_stop();
  Time next = std::min(timers_.next(), acceptor_.again());
  if (draining_) next = std::min(next, stop_.until());
  if (!roomy_.empty()) next = Time::min();
  loop_.set_timer(next);
}

// Asked once the effects of a callback are carried out and whenever some output is gone. The rest
// waits for the next turn of the loop: a session that sends without end shares it with the others.
void LibuvLoop::await_room(Connection& c) {
  if (!c.awaits_room || c.offered || c.closing || c.outbox.size() > limits_.low_water) return;
  c.offered = true;
  roomy_.push_back(c.id);
}

void LibuvLoop::give_room() {
  for (const ConnId& id : std::exchange(roomy_, {})) {
    Connection* c = connections_.find(id.slot, id.generation);
    if (c == nullptr || c->ended || c->closing) continue;
    add(*c, Event::Kind::room);
    dispatch(*c);
  }
}

// ---- call -------------------------------------------------------------------------------------

void LibuvLoop::ask(Connection& c, Out::Call&& call) {
  ++c.calls;
  queue_work(loop_.get(), std::make_unique<Calling>(c, std::move(call)));
}

// Back on the loop.
void LibuvLoop::answered(Calling& calling) {
  if (!std::exchange(woken_, true)) counters_.add(Count::sys_wake, 2);
  ++events_;
  counters_.add(Count::pool_jobs);
  counters_.add(calling.counters);
  Connection& c = calling.c;
  --c.calls;
  if (c.ended) return release(c);
  if (c.closing) return;
  add(c, Event::Kind::reply).answer = std::move(calling.answer);
  dispatch(c);
}

// ---- close ------------------------------------------------------------------------------------

// All is sent and the session has closed. The peer's FIN is awaited, so that no RST overtakes the
// last reply.
void LibuvLoop::finish(Connection& c) {
  if (c.eof) return end(c, {});
  counters_.add(Count::sys_shutdown);
  uv_shutdown(&c.shutdown, c.stream(), [](uv_shutdown_t*, int) {});
  c.lingering = true;
  timers_.set(c.id.slot, std::chrono::steady_clock::now() + limits_.linger);
  c.paused = false;
  read(c);
}

// libuv says nothing of a write that goes on: whether some of it has gone is seen when time is up.
void LibuvLoop::await_flush(Connection& c) {
  c.unsent = c.left();
  timers_.set(c.id.slot, std::chrono::steady_clock::now() + limits_.flush);
}

void LibuvLoop::end(Connection& c, std::error_code error) {
  if (c.ended) return;
  c.ended = true;
  c.error = error;
  timers_.set(c.id.slot, kNever);
  c.cancellation.cancel();
  const uv_close_cb closed = [](uv_handle_t* h) {
    Connection::of(h).closed = true;
    Connection::of(h).loop->release(Connection::of(h));
  };
  counters_.add(Count::sys_close);
  if (c.aborted) {
    counters_.add(Count::sys_sockopt);
    if (uv_tcp_close_reset(&c.tcp, closed) == 0) return;
  }
  uv_close(reinterpret_cast<uv_handle_t*>(&c.tcp), closed);
}

void LibuvLoop::overflow(Connection& c) {
  counters_.add(Count::overflows);
  end(c, std::make_error_code(std::errc::no_buffer_space));
}

// Frees an ended connection once neither libuv nor the pool holds anything of it.
void LibuvLoop::release(Connection& c) {
  if (!c.closed || c.working || c.calls > 0) return;
  if (c.session) {
    counters_.add(Count::closed);
    c.session->on_close(c.error);
  }
  c.inbox.count(counters_);
  connections_.remove(c.id.slot);
}

// ---- drain ------------------------------------------------------------------------------------

void LibuvLoop::stop(Duration grace) noexcept {
  if (stop_.set(grace)) loop_.wake();
}

void LibuvLoop::check_stop() {
  if (!stop_.requested()) return;
  if (!std::exchange(draining_, true)) {
    acceptor_.shut();
    connections_.each([this](Connection& c) {
      if (c.ended || c.closing) return;
      add(c, Event::Kind::drain);
      dispatch(c);
    });
  }
  if (std::chrono::steady_clock::now() >= stop_.until()) {
    connections_.each([this](Connection& c) { end(c, canceled()); });
  }
  if (connections_.size() == 0) uv_stop(loop_.get());
}

// ---- run --------------------------------------------------------------------------------------

void LibuvLoop::after_wait() {
  counters_.add(Count::sys_wait);
  counters_.batch(events_);
  events_ = 0;
  woken_ = false;
}

void LibuvLoop::run(Service& service) {
  service_ = &service;
  uv_run(loop_.get(), UV_RUN_DEFAULT);
  upstreams_.shut();
}

}  // namespace

std::string libuv_unavailable() {
  return {};
}

std::unique_ptr<Backend> make_libuv(const Spec& spec, const Options& options) {
  return std::make_unique<LoopBackend<LibuvLoop, LibuvConfig>>(
      options, LibuvConfig{.pool = spec.variant != "inline", .batch = spec.variant.empty()});
}

}  // namespace echolab
