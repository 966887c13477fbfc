// io_uring: completion. The program says what it wants done; the kernel does it and says when.
//
// Mechanism   io_uring(7). Requests go into one shared ring, completions come out of another; a
//             single io_uring_enter(2) submits a batch and waits for the next. A multishot receive
//             is asked for once per connection and completes each time bytes arrive, a multishot
//             accept once per listener. DEFER_TASKRUN lets the kernel finish its work inside our
//             own wait, not whenever it likes (io_uring_setup(2)); direct descriptors skip the
//             process's descriptor table.
// Kernel      6.0 for multishot receive, 6.1 for DEFER_TASKRUN, 6.12 for incremental buffers.
//             What is lacking is done without, and reported as not granted.
// Buffers     The kernel picks one when bytes arrive (buffer_ring.hpp). A forward pins it, the
//             send reads from it, and its completion gives it back. Over the limit, or when few
//             buffers are left, it is copied and counted. Who finds none is parked for a turn.
// cost: io_uring_enter 1
//             It submits the reply and sleeps until the next request. With many connections the
//             call is shared by its batch. io_uring:plain needs 2: it asks for each receive.
// Bad at      Being young: seccomp filters and sysctls refuse it, features come by kernel version.
//             On sockets the TCP stack costs more than the system calls that it saves. A multishot
//             receive runs ahead of backpressure: until its cancellation is seen, it fills buffers.
//
// io_uring:plain is what people start with: no set-up flags, one-shot operations, ordinary
// descriptors, a buffer per connection. io_uring:multishot adds only multishot and provided
// buffers to it. io_uring:sqpoll has a kernel thread take the requests: no call to submit, but a
// second CPU.

#include <liburing.h>
#include <poll.h>

#include <algorithm>
#include <cassert>
#include <deque>

#include "backends/buffer_ring.hpp"
#include "backends/connections.hpp"
#include "backends/loops.hpp"
#include "backends/mailbox.hpp"
#include "backends/models.hpp"
#include "backends/outbox.hpp"
#include "backends/ring.hpp"
#include "backends/rooms.hpp"
#include "backends/timers.hpp"
#include "backends/uring_accept.hpp"
#include "backends/uring_calls.hpp"
#include "backends/uring_connection.hpp"

namespace echolab {
namespace {

class UringLoop {
 public:
  static constexpr Listener::Mode kListener = Listener::Mode::blocking;  // or accept says EAGAIN

  UringLoop(Listener listener, std::uint16_t shard, const Options& options,
            const Ring::Config& config);
  void run(Service& service);
  void stop(Duration grace) noexcept;
  void push(std::span<const ConnId> ids, const Post& post) noexcept;
  [[nodiscard]] const Counters& counters() const { return counters_; }
  [[nodiscard]] std::vector<Feature> features() const { return ring_.features(); }

 private:
  // ---- Connection -----------------------------------------------------------------------------
  using Connection = UringConnection;
  enum class Op : std::uint8_t {
    receive,
    send,
    watch,
    cancel,
    install,
    shutdown,
    reset,
    close,
    wake
  };

  static std::uint64_t tag(Op op, ConnId id) { return ring_tag(static_cast<std::uint8_t>(op), id); }
  Session& enter(Connection& c);
  void queue(io_uring_sqe* sqe, Op op, Connection& c);
  void cancel(Op op, Connection& c);
  void accepted(int fd);
  void receive(Connection& c);
  void receive_parked();
  void received(Connection& c, const io_uring_cqe& cqe);
  void deliver(Connection& c, Input bytes, const Outbox::Source& source);
  void at_eof(Connection& c);
  void watch(Connection& c);
  void resume(Connection& c);
  void stop_receiving(Connection& c);
  void apply(Connection& c, const Outbox::Source& source);
  void send_later(Connection& c);
  void flush(Connection& c);
  void sent(Connection& c, int result);
  void settle();
  void deliver_room();
  void deliver_posts();
  void fire_deadlines();
  void deliver_replies();
  void finish(Connection& c);
  void shut(int fd);
  void installed(Connection& c, int result);
  void abort(Connection& c);
  void end(Connection& c, std::error_code error);
  void release(Connection& c);
  void drain();
  void handle(const io_uring_cqe& cqe);
  void wait();

  const Limits limits_;
  const std::uint16_t shard_;
  Counters counters_;
  RingWake wake_;
  Ring ring_;
  Connections<Connection> connections_;
  Timers timers_;
  Mailbox mailbox_;
  StopSignal stop_;
  Service* service_ = nullptr;
  Time now_{};
  UringAccept accept_;
  UringCalls calls_;
  Rooms<Connection> rooms_;
  bool draining_ = false;
  bool unsettled_ = false;  // silent sends were left in flight by the last call
  // Have a silent send in flight. Each is queued by flush(), the last thing before wait(): between
  // that call and settle() it would be taken for sent before it is submitted.
  std::vector<ConnId> silent_;
  std::vector<ConnId> settling_;  // silent_, when the last call has carried it out
  Out out_;                       // the effects of the callback being served
  std::deque<ConnId> parked_;     // found no buffer to receive into
  std::vector<ConnId> flush_;     // have something to send that no request carries yet
  std::vector<ConnId> turn_;      // flush_ while it is worked off
};

// ---- setup ------------------------------------------------------------------------------------

UringLoop::UringLoop(Listener listener, std::uint16_t shard, const Options& options,
                     const Ring::Config& config)
    : limits_(options.limits),
      shard_(shard),
      wake_(counters_),
      ring_(config, counters_),
      accept_(ring_, counters_, std::move(listener)),
      calls_(ring_, counters_, now_),
      rooms_(limits_.low_water) {
  counters_.on_refused = options.on_refused;
}

// Tags a prepared entry; it is submitted with the next wait.
void UringLoop::queue(io_uring_sqe* sqe, Op op, Connection& c) {
  sqe->user_data = tag(op, c.id);
  if (ring_.direct() && op != Op::cancel) sqe->flags |= IOSQE_FIXED_FILE;
  ++c.in_flight;
}

// Its own completion says nothing: what is cancelled completes.
void UringLoop::cancel(Op op, Connection& c) {
  queue(ring_.cancel(tag(op, c.id)), Op::cancel, c);
}

// The session, for one callback, which may ask what is queued: what no completion has told of yet.
Session& UringLoop::enter(Connection& c) {
  out_.set_queued(c.outbox.size());
  return *c.session;
}

// ---- accept -----------------------------------------------------------------------------------

void UringLoop::accepted(int fd) {
  counters_.add(Count::accepted);
  Connection& c = connections_.add(shard_);
  c.fd = fd;
  c.session = service_->accept();
  enter(c).on_open(out_, c.id, now_);
  apply(c, {});
  receive(c);
}

// ---- receive ----------------------------------------------------------------------------------

// Asks for input, unless it is asked for or must wait: its own buffer may hold replies.
void UringLoop::receive(Connection& c) {
  if (c.receiving || c.parked || c.paused || !c.held.empty() || c.eof || c.ended) return;
  if (!ring_.multishot() && c.outbox.pinned() > 0) return;
  io_uring_sqe* sqe = ring_.entry();
  c.prepare_receive(sqe, ring_.multishot());
  queue(sqe, Op::receive, c);
  c.receiving = true;
}

// Goes on with those that found no buffer, as many as there are (always some: buffer_ring.hpp). One
// may find none although nothing has arrived for it, so the loop does not sleep while any is left.
void UringLoop::receive_parked() {
  for (std::size_t buffers = ring_.buffers().refill(); buffers > 0 && !parked_.empty();) {
    Connection* c = connections_.find(parked_.front().slot, parked_.front().generation);
    parked_.pop_front();
    if (c == nullptr) continue;
    c->parked = false;
    receive(*c);
    if (!c->receiving) continue;
    counters_.add(Count::rearms);
    --buffers;
  }
  if (!parked_.empty()) ring_.buffers().missed();
}

void UringLoop::received(Connection& c, const io_uring_cqe& cqe) {
  counters_.add(Count::op_recv);
  if ((cqe.flags & IORING_CQE_F_MORE) == 0) {
    --c.in_flight;
    c.receiving = false;
  }
  if ((cqe.flags & IORING_CQE_F_BUFFER) != 0) {
    const std::uint16_t buffer = BufferRing::buffer_of(cqe);
    const Input bytes = ring_.buffers().received(cqe);
    const Pin pin(ring_.buffers(), buffer);
    const bool scarce = ring_.buffers().scarce();
    const Outbox::Source source{&ring_.buffers(), buffer, scarce ? 0 : limits_.pinned};
    if (c.paused || !c.held.empty()) {
      counters_.add(Count::bytes_copied, c.hold(bytes, source));
    } else {
      deliver(c, bytes, source);
    }
  } else if (cqe.res > 0) {
    deliver(c, Input(c.buffer.get(), static_cast<std::size_t>(cqe.res)), {&c.no_pins, 0, SIZE_MAX});
  }
  if (c.ended) return release(c);
  if (cqe.res == 0) {
    c.eof = true;
    return c.held.empty() ? at_eof(c) : void();
  } else if (cqe.res == -ENOBUFS) {
    counters_.add(Count::enobufs);
    ring_.buffers().missed();
    c.parked = true;
    return parked_.push_back(c.id);
  } else if (cqe.res < 0 && cqe.res != -ECANCELED && cqe.res != -EINTR) {
    return end(c, error_of(-cqe.res));
  }
  if (ring_.multishot() && !c.receiving) counters_.add(Count::rearms);
  receive(c);
}

void UringLoop::deliver(Connection& c, Input bytes, const Outbox::Source& source) {
  if (bytes.empty() || c.ended || c.closing) return;
  counters_.add(Count::inputs);
  counters_.add(Count::bytes_in, bytes.size());
  enter(c).on_bytes(out_, bytes, now_);
  apply(c, source);
}

void UringLoop::at_eof(Connection& c) {
  if (c.closing) return c.lingering ? end(c, {}) : void();
  enter(c).on_eof(out_, now_);
  apply(c, {});
  if (!c.closing && !c.ended) watch(c);
}

// After the peer's FIN no receive is going to tell of a reset. Each poll reports the FIN at once,
// and only one that goes on reports what comes after it.
void UringLoop::watch(Connection& c) {
  io_uring_sqe* sqe = ring_.entry();
  io_uring_prep_poll_multishot(sqe, c.fd, 0);
  queue(sqe, Op::watch, c);
  c.watching = true;
}

// Goes on after a pause, first with what a multishot receive had completed before it was cancelled.
void UringLoop::resume(Connection& c) {
  c.paused = false;
  std::size_t done = 0;
  for (; done < c.held.size() && !c.paused; ++done) {
    Connection::Held& h = c.held[done];
    deliver(c, h.bytes, h.source);
    if (c.ended) return;
    h.pin = Pin();
  }
  c.held.erase(c.held.begin(), c.held.begin() + static_cast<std::ptrdiff_t>(done));
  if (done > 0 && c.held.empty() && c.eof) at_eof(c);
  receive(c);
}

// What has already arrived may still complete; it is held until reading goes on.
void UringLoop::stop_receiving(Connection& c) {
  if (!c.receiving || c.cancelling) return;
  cancel(Op::receive, c);
  c.cancelling = true;
}

// ---- send -------------------------------------------------------------------------------------

// Takes over what one callback asked for, and leaves out_ clean for the next.
void UringLoop::apply(Connection& c, const Outbox::Source& source) {
  if (out_.aborting()) return abort(c);
  if (out_.total() > 0) counters_.add(Count::bytes_copied, c.outbox.take(out_, 0, source));
  if (const auto when = out_.deadline()) timers_.set(c.id.slot, *when);
  if (c.outbox.size() > limits_.outbox_limit) {
    counters_.add(Count::overflows);
    end(c, std::make_error_code(std::errc::no_buffer_space));
  } else if (!c.paused && c.outbox.size() >= limits_.high_water) {
    c.paused = true;
    counters_.add(Count::pauses);
    stop_receiving(c);
  }
  if (out_.closing() && !c.ended) {
    c.closing = true;
    timers_.set(c.id.slot, now_ + limits_.flush);
    if (c.calls > 0) calls_.cancel(c.id);
  } else if (!c.ended) {
    if (!out_.calls().empty()) c.calls += calls_.start(c.id, out_.calls());
    if (out_.awaits_room()) {
      c.awaits_room = true;
      rooms_.check(c);
    }
  }
  out_.clear();
  send_later(c);
}

// Sending starts at the end of the turn: what belongs together leaves together, and whether a
// receive is in flight is then known for certain.
void UringLoop::send_later(Connection& c) {
  if (c.ended || c.queued || c.sending > 0 || (!c.closing && c.outbox.empty())) return;
  c.queued = true;
  flush_.push_back(c.id);
}

// One send at a time per connection: two could be carried out in either order.
void UringLoop::flush(Connection& c) {
  if (c.ended || c.sending > 0) return;
  if (c.outbox.empty()) {
    if (c.closing && !c.lingering) finish(c);
    return;
  }
  assert(settling_.empty());
  io_uring_sqe* sqe = ring_.entry();
  c.prepare_send(sqe);
  // If nothing waits for its completion, it is asked to report only that it could not take all:
  // then the same call submits it and sleeps until something else happens.
  const bool awaited = c.closing || !c.receiving || c.awaits_room;
  c.silent = ring_.silent() && !c.blocked && !awaited && c.sending == c.outbox.size();
  if (c.silent) {
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    silent_.push_back(c.id);
  }
  queue(sqe, Op::send, c);
}

void UringLoop::sent(Connection& c, int result) {
  counters_.add(Count::op_send);
  --c.in_flight;
  const std::size_t wanted = std::exchange(c.sending, 0);
  c.silent = false;
  if (c.ended) return release(c);
  if (result < 0 && result != -EINTR && result != -EAGAIN) return end(c, error_of(-result));
  const auto n = static_cast<std::size_t>(std::max(result, 0));
  c.blocked = n < wanted;
  if (c.blocked) counters_.add(result == -EAGAIN ? Count::eagain : Count::short_sends);
  counters_.add(Count::bytes_out, n);
  c.outbox.consume(n);
  if (c.closing && n > 0) timers_.set(c.id.slot, now_ + limits_.flush);
  if (c.paused && c.outbox.size() <= limits_.low_water) resume(c);
  if (c.awaits_room) rooms_.check(c);
  receive(c);
  send_later(c);
}

// All that was submitted has been carried out: what has not failed has been sent.
void UringLoop::settle() {
  for (const ConnId& id : settling_) {
    Connection* c = connections_.find(id.slot, id.generation);
    if (c != nullptr && c->silent) sent(*c, static_cast<int>(c->sending));
  }
  settling_.clear();
}

void UringLoop::deliver_room() {
  rooms_.deliver(connections_, [this](Connection& c) {
    enter(c).on_room(out_, now_);
    apply(c, {});
  });
}

// ---- post -------------------------------------------------------------------------------------

void UringLoop::push(std::span<const ConnId> ids, const Post& post) noexcept {
  if (mailbox_.push(ids, shard_, post) && mailbox_.take_wake()) wake_.wake();
}

void UringLoop::deliver_posts() {
  mailbox_.deliver(connections_, counters_, [this](Connection& c, const Post& post) {
    enter(c).on_post(out_, post, now_);
    apply(c, {});
  });
}

// ---- deadlines --------------------------------------------------------------------------------

void UringLoop::fire_deadlines() {
  std::uint32_t slot = 0;
  while (timers_.pop(now_, slot)) {
    Connection& c = *connections_.at(slot);
    if (c.closing) {
      end(c, c.lingering ? std::error_code() : std::make_error_code(std::errc::timed_out));
    } else {
      counters_.add(Count::deadlines);
      enter(c).on_deadline(out_, now_);
      apply(c, {});
    }
  }
}

// ---- call -------------------------------------------------------------------------------------

void UringLoop::deliver_replies() {
  calls_.deliver(connections_, [this](Connection& c, const Reply& reply) {
    enter(c).on_reply(out_, reply, now_);
    apply(c, {});
  });
}

// ---- close ------------------------------------------------------------------------------------

// All is sent. The peer's FIN is awaited, so that no RST overtakes the last reply.
void UringLoop::finish(Connection& c) {
  if (c.eof) return end(c, {});
  if (ring_.direct()) {
    io_uring_sqe* sqe = ring_.entry();
    Ring::prepare_install(sqe, c.fd);
    queue(sqe, Op::install, c);
  } else {
    shut(c.fd);
  }
  c.lingering = true;
  timers_.set(c.id.slot, now_ + limits_.linger);
  c.held.clear();
  resume(c);
}

// Not by the ring, which leaves it to a thread of the kernel's: that one then wakes up every five
// seconds for as long as the process lives.
void UringLoop::shut(int fd) {
  counters_.add(Count::sys_shutdown);
  ::shutdown(fd, SHUT_WR);
}

// Has got an ordinary descriptor, as shutdown(2) takes no direct one; or none.
void UringLoop::installed(Connection& c, int result) {
  if (const Fd fd(result); fd) {
    shut(fd.get());
    counters_.add(Count::sys_close);
  } else if (!c.ended) {
    io_uring_sqe* sqe = ring_.entry();
    io_uring_prep_shutdown(sqe, c.fd, SHUT_WR);
    queue(sqe, Op::shutdown, c);
  }
}

// What the kernel still holds is cancelled by end().
void UringLoop::abort(Connection& c) {
  out_.clear();
  io_uring_sqe* sqe = ring_.entry();
  c.prepare_reset(sqe);
  queue(sqe, Op::reset, c);
  end(c, std::make_error_code(std::errc::connection_aborted));
}

void UringLoop::end(Connection& c, std::error_code error) {
  if (c.ended) return;
  c.ended = true;
  if (c.calls > 0) calls_.cancel(c.id);
  timers_.set(c.id.slot, kNever);
  counters_.add(Count::closed);
  c.session->on_close(error);
  c.session.reset();
  c.held.clear();
  stop_receiving(c);
  if (c.sending > 0) cancel(Op::send, c);
  if (c.watching) cancel(Op::watch, c);
  release(c);
}

// Frees an ended connection once the kernel holds nothing of it: the descriptor, then the rest.
void UringLoop::release(Connection& c) {
  if (c.in_flight > 0) return;
  c.outbox.clear();
  if (c.fd >= 0) {
    io_uring_sqe* sqe = ring_.entry();
    ring_.prepare_close(sqe, c.fd);
    sqe->user_data = tag(Op::close, c.id);
    ++c.in_flight;
    c.fd = -1;
    return;
  }
  connections_.remove(c.id.slot);
}

// ---- drain ------------------------------------------------------------------------------------

void UringLoop::stop(Duration grace) noexcept {
  if (stop_.set(grace)) wake_.wake();
}

void UringLoop::drain() {
  draining_ = true;
  accept_.shut();
  connections_.each([this](Connection& c) {
    if (c.ended || c.closing) return;
    enter(c).on_drain(out_, now_);
    apply(c, {});
  });
}

// ---- run --------------------------------------------------------------------------------------

void UringLoop::handle(const io_uring_cqe& cqe) {
  const auto op = static_cast<Op>(cqe.user_data >> 56);
  if (op == Op::wake) return wake_.arm(ring_, tag(Op::wake, {}));
  if (cqe.user_data >> 56 >= UringCalls::kFirstOp) return calls_.completed(cqe);
  if (cqe.user_data >> 56 >= UringAccept::kFirstOp) {
    const auto fd = accept_.completed(cqe, connections_.size());
    return fd ? accepted(*fd) : void();
  }
  Connection* c =
      connections_.at_tag(static_cast<std::uint32_t>(cqe.user_data),
                          static_cast<std::uint32_t>(cqe.user_data >> 32), kRingTagGeneration);
  if (c == nullptr) return;
  if (op == Op::receive) return received(*c, cqe);
  if (op == Op::send) return sent(*c, cqe.res);
  const bool last = (cqe.flags & IORING_CQE_F_MORE) == 0;
  if (last) --c->in_flight;
  if (op == Op::cancel) c->cancelling = false;
  if (op == Op::watch) c->watching = !last;
  if (op == Op::install) installed(*c, cqe.res);
  if (c->ended) return release(*c);
  if (op != Op::watch || cqe.res < 0) return;
  if ((cqe.res & (POLLERR | POLLHUP)) != 0) {
    end(*c, std::make_error_code(std::errc::connection_reset));
  } else if (last) {
    watch(*c);
  }
}

// Until something completes, a deadline is due or a post arrives; at once if sends are unsettled.
void UringLoop::wait() {
  Time next = std::min(timers_.next(), calls_.next());
  if (draining_) next = std::min(next, stop_.until());
  const bool sleep = rooms_.empty() && !unsettled_ && parked_.empty() && mailbox_.sleep();
  const bool done = ring_.wait(!sleep ? Time::min() : next);
  if (done) settling_.swap(silent_);
  unsettled_ = !silent_.empty();
  mailbox_.awake();
}

void UringLoop::run(Service& service) {
  service_ = &service;
  ring_.enable();
  wake_.arm(ring_, tag(Op::wake, {}));
  accept_.arm();
  now_ = std::chrono::steady_clock::now();
  for (;;) {
    if (stop_.requested()) {
      if (!draining_) drain();
      if (now_ >= stop_.until()) {
        connections_.each(
            [this](Connection& c) { end(c, std::make_error_code(std::errc::operation_canceled)); });
      }
      if (connections_.size() == 0) calls_.shut();
      if (connections_.size() + calls_.size() == 0 && accept_.idle()) break;
    }
    wait();
    now_ = std::chrono::steady_clock::now();
    counters_.batch(ring_.completions([this](const io_uring_cqe& cqe) { handle(cqe); }));
    settle();
    deliver_posts();
    fire_deadlines();
    deliver_replies();
    deliver_room();
    if (ring_.multishot()) receive_parked();
    turn_.swap(flush_);
    for (const ConnId& id : turn_) {
      Connection* c = connections_.find(id.slot, id.generation);
      if (c == nullptr) continue;
      c->queued = false;
      flush(*c);
    }
    turn_.clear();
  }
}

}  // namespace

std::unique_ptr<Backend> make_io_uring(const Spec& spec, const Options& options) {
  Ring::Config config;
  config.multishot = spec.variant != "plain";
  config.tuned = spec.variant.empty() || spec.variant == "sqpoll";
  config.sqpoll = spec.variant == "sqpoll";
  return std::make_unique<LoopBackend<UringLoop, Ring::Config>>(options, config);
}

}  // namespace echolab
