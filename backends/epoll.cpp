// epoll: readiness. The kernel says which sockets can be read or written without blocking; the
// loop then makes the calls.
//
// Mechanism   epoll(7). Each socket is registered once, edge-triggered, for reading and writing.
//             The kernel links a socket into the ready list when its state changes (bytes arrive,
//             send space frees up), and epoll_wait(2) hands over one batch. Since an edge is
//             reported once, the loop reads until the socket is drained; a recv shorter than the
//             buffer proves that it is (epoll(7), question 9), which saves the second recv that
//             would only say EAGAIN.
// Kernel      2.6.17 (EPOLLRDHUP); SO_REUSEPORT for more than one loop: 3.9.
// Buffers     One receive buffer per loop, hot in cache, lent to the session for one call. A
//             forward is sent from it before the next recv; only what the socket does not take is
//             copied.
// cost: epoll_wait 1, recvfrom 1, sendto 1
//             With many connections the wait is shared by its batch.
// Bad at      Disk files (always "ready", so they block the loop). A handler that computes or
//             blocks stalls every connection of its loop.
//
// epoll:lt is what most people write first: level-triggered, one recv per event, and a change of
// interest (epoll_ctl) whenever output has to wait.

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>

#include "backends/connections.hpp"
#include "backends/epoll_calls.hpp"
#include "backends/loops.hpp"
#include "backends/mailbox.hpp"
#include "backends/models.hpp"
#include "backends/outbox.hpp"
#include "backends/rooms.hpp"
#include "backends/timers.hpp"

namespace echolab {
namespace {

constexpr std::size_t kReceiveBuffer = 64 * 1024;  // bytes; a whole 64 KiB message in one recv
constexpr int kEventsPerWait = 512;  // larger batches gain nothing and delay the first reply
constexpr int kReadsPerTurn = 16;    // 1 MiB from one connection, then the others' turn
constexpr int kAcceptsPerTurn = 64;  // connections taken between two looks at the others
constexpr std::size_t kGather = 64;  // iovec entries per sendmsg
// Beyond the slots of upstream connections, which are beyond those of connections.
constexpr std::uint32_t kListenerSlot = UINT32_MAX;
constexpr std::uint32_t kWakeSlot = UINT32_MAX - 1;

struct EpollConfig {
  bool edge = true;
};

class EpollLoop {
 public:
  static constexpr Listener::Mode kListener = Listener::Mode::nonblocking;
  EpollLoop(Listener listener, std::uint16_t shard, const Options& options,
            const EpollConfig& config);
  void run(Service& service);
  void stop(Duration grace) noexcept;
  void push(std::span<const ConnId> ids, const Post& post) noexcept;
  [[nodiscard]] const Counters& counters() const { return counters_; }
  [[nodiscard]] std::vector<Feature> features() const {
    return {{"edge_triggered", config_.edge, config_.edge, ""}};
  }

 private:
  // ---- Connection -----------------------------------------------------------------------------
  struct Connection {
    ConnId id;
    Fd fd;
    std::unique_ptr<Session> session;
    Outbox outbox;
    unsigned calls = 0;          // unanswered
    std::uint32_t interest = 0;  // events registered with epoll
    bool peer_done = false;      // the kernel reported FIN or an error: a short read proves nothing
    bool eof = false;            // recv has returned 0
    bool paused = false;         // not reading: too much is waiting to be sent
    bool queued = false;         // on the again_ list
    bool awaits_room = false;    // on_room is to come
    bool room_queued = false;    // on the room_ list
    bool closing = false;        // the session has closed; input is discarded
    bool lingering = false;      // our FIN is sent, the peer's is awaited
    bool ended = false;          // on_close has been called
  };

  Session& enter(Connection& c);
  void accept_all();
  void listen(bool on);
  void receive(Connection& c);
  void apply(Connection& c);
  void send_direct(Connection& c);
  void flush(Connection& c);
  void update_interest(Connection& c);
  void deliver_room();
  void wake() noexcept;
  void deliver_posts();
  void fire_deadlines();
  void deliver_replies();
  void finish(Connection& c);
  void abort(Connection& c);
  void end(Connection& c, std::error_code error);
  void drain();
  void again(Connection& c);
  void handle(const epoll_event& event);
  [[nodiscard]] int timeout_ms() const;

  const EpollConfig config_;
  const Limits limits_;
  const std::uint16_t shard_;
  Listener listener_;
  Fd epoll_;
  Fd wake_;
  Connections<Connection> connections_;
  Timers timers_;
  Mailbox mailbox_;
  StopSignal stop_;
  Counters counters_;
  Service* service_ = nullptr;
  Time now_{};
  Time listen_again_ = kNever;  // no descriptor is left: not listening until then
  EpollCalls calls_;
  Rooms<Connection> rooms_;
  bool draining_ = false;
  Out out_;  // the effects of the callback being served
  std::vector<std::byte> buffer_ = std::vector<std::byte>(kReceiveBuffer);
  std::vector<ConnId> again_;         // may have more to read
  std::vector<std::uint32_t> ended_;  // slots to free when the batch is done
  std::vector<ConnId> turn_;          // again_ while it is worked off
};

// ---- setup ------------------------------------------------------------------------------------

std::uint64_t tag(std::uint32_t slot, std::uint32_t generation) {
  return std::uint64_t{generation} << 32 | slot;
}

EpollLoop::EpollLoop(Listener listener, std::uint16_t shard, const Options& options,
                     const EpollConfig& config)
    : config_(config),
      limits_(options.limits),
      shard_(shard),
      listener_(std::move(listener)),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      calls_(epoll_.get(), counters_, now_),
      rooms_(limits_.low_water) {
  counters_.on_refused = options.on_refused;
  if (!epoll_) throw_errno(errno, "cannot create an epoll instance");
  if (!wake_) throw_errno(errno, "cannot create an eventfd");
  epoll_event listening{0, {.u64 = tag(kListenerSlot, 0)}};
  // Edge-triggered, so it never has to be read back: every write is an edge.
  epoll_event waking{EPOLLIN | EPOLLET, {.u64 = tag(kWakeSlot, 0)}};
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, listener_.fd(), &listening) < 0 ||
      epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &waking) < 0) {
    throw_errno(errno, "cannot register with epoll");
  }
  listen(true);
}

// The session, for one callback, which may ask what is queued.
Session& EpollLoop::enter(Connection& c) {
  out_.set_queued(c.outbox.size());
  return *c.session;
}

// ---- accept -----------------------------------------------------------------------------------

void EpollLoop::accept_all() {
  for (int i = 0; i < kAcceptsPerTurn && !draining_; ++i) {
    counters_.add(Count::sys_accept);
    Fd fd = listener_.accept(SOCK_NONBLOCK);
    if (!fd) {
      if (errno == EMFILE || errno == ENFILE) {
        counters_.refuse();
        continue;
      }
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno == ENOBUFS || errno == ENOMEM) listen(false);
      counters_.add(Count::eagain);
      return;
    }
    Connection& c = connections_.add(shard_);
    c.interest = config_.edge ? EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET : EPOLLIN | EPOLLRDHUP;
    epoll_event event{c.interest, {.u64 = tag(c.id.slot, c.id.generation)}};
    counters_.add(Count::sys_epoll_ctl);
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd.get(), &event) < 0) {
      counters_.refuse();
      connections_.remove(c.id.slot);
      continue;
    }
    c.fd = std::move(fd);
    c.session = service_->accept();
    counters_.add(Count::accepted);
    enter(c).on_open(out_, c.id, now_);
    apply(c);
  }
}

// Level-triggered, or connections beyond kAcceptsPerTurn would wait for the next one to come. Those
// that can be neither taken nor refused would be reported forever.
void EpollLoop::listen(bool on) {
  listen_again_ = on ? kNever : now_ + Listener::kRetry;
  epoll_event event{on ? std::uint32_t{EPOLLIN} : 0U, {.u64 = tag(kListenerSlot, 0)}};
  counters_.add(Count::sys_epoll_ctl);
  epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, listener_.fd(), &event);
}

// ---- receive ----------------------------------------------------------------------------------

void EpollLoop::receive(Connection& c) {
  for (int i = 0; i < (config_.edge ? kReadsPerTurn : 1); ++i) {
    if (c.ended || c.paused || c.eof) return;
    counters_.add(Count::sys_recv);
    const ssize_t n = ::recv(c.fd.get(), buffer_.data(), buffer_.size(), 0);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) {
        counters_.add(Count::eagain);
      } else {
        end(c, last_error());
      }
      return;
    }
    if (n == 0) {
      c.eof = true;
      if (c.closing) return c.lingering ? end(c, {}) : void();
      enter(c).on_eof(out_, now_);
      return apply(c);
    }
    if (!c.closing) {
      const auto size = static_cast<std::size_t>(n);
      counters_.add(Count::inputs);
      counters_.add(Count::bytes_in, size);
      enter(c).on_bytes(out_, Input(buffer_.data(), size), now_);
      apply(c);
    }
    if (static_cast<std::size_t>(n) < buffer_.size() && !c.peer_done) return;
  }
  if (config_.edge) again(c);
}

// No edge will announce what is already there: come back after the others.
void EpollLoop::again(Connection& c) {
  if (c.queued || c.ended) return;
  c.queued = true;
  again_.push_back(c.id);
}

// ---- send -------------------------------------------------------------------------------------

// Carries out what one callback asked for, and leaves out_ clean for the next.
void EpollLoop::apply(Connection& c) {
  if (out_.aborting()) return abort(c);
  if (out_.total() > 0) {
    if (c.outbox.empty()) {
      send_direct(c);
    } else {
      counters_.add(Count::bytes_copied, c.outbox.take(out_, 0));
    }
  }
  if (!c.ended) {
    if (const auto when = out_.deadline()) timers_.set(c.id.slot, *when);
    if (c.outbox.size() > limits_.outbox_limit) {
      counters_.add(Count::overflows);
      end(c, std::make_error_code(std::errc::no_buffer_space));
    } else if (!c.paused && c.outbox.size() >= limits_.high_water) {
      c.paused = true;
      counters_.add(Count::pauses);
    }
  }
  if (out_.closing() && !c.ended) {
    c.closing = true;
    if (c.calls > 0) calls_.cancel(c.id);
    if (c.outbox.empty()) {
      finish(c);
    } else {
      timers_.set(c.id.slot, now_ + limits_.flush);
    }
  } else if (!c.ended) {
    if (!out_.calls().empty()) c.calls += calls_.start(c.id, out_.calls());
    if (out_.awaits_room()) {
      c.awaits_room = true;
      rooms_.check(c);
    }
  }
  out_.clear();
  if (!c.ended) update_interest(c);
}

// Nothing is waiting: send straight from where the bytes lie, queue only what is not taken.
void EpollLoop::send_direct(Connection& c) {
  ssize_t n = 0;
  counters_.add(Count::sys_send);
  if (out_.pieces() == 1) {
    const Bytes bytes = out_.bytes(0);
    n = ::send(c.fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  } else {
    std::array<iovec, kGather> entries;
    const std::size_t used = std::min(out_.pieces(), kGather);
    for (std::size_t i = 0; i < used; ++i) {
      const Bytes bytes = out_.bytes(i);
      entries[i] = {const_cast<std::byte*>(bytes.data()), bytes.size()};
    }
    msghdr message{};
    message.msg_iov = entries.data();
    message.msg_iovlen = used;
    n = ::sendmsg(c.fd.get(), &message, MSG_NOSIGNAL);
  }
  if (n < 0) {
    if (errno != EAGAIN && errno != EINTR) return end(c, last_error());
    counters_.add(Count::eagain);
    n = 0;
  }
  const auto sent = static_cast<std::size_t>(n);
  counters_.add(Count::bytes_out, sent);
  if (sent == out_.total()) return;
  counters_.add(Count::short_sends);
  counters_.add(Count::bytes_copied, c.outbox.take(out_, sent));
  // More pieces than one call takes: the socket may well have room, and then no edge would come.
  if (out_.pieces() > kGather) flush(c);
}

void EpollLoop::flush(Connection& c) {
  while (!c.ended && !c.outbox.empty()) {
    std::array<iovec, kGather> entries;
    msghdr message{};
    message.msg_iov = entries.data();
    message.msg_iovlen = c.outbox.gather(entries.data(), kGather);
    counters_.add(Count::sys_send);
    const ssize_t n = ::sendmsg(c.fd.get(), &message, MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) return end(c, last_error());
      counters_.add(Count::eagain);
      break;
    }
    counters_.add(Count::bytes_out, static_cast<std::size_t>(n));
    c.outbox.consume(static_cast<std::size_t>(n));
    if (c.closing) timers_.set(c.id.slot, now_ + limits_.flush);
  }
  if (c.ended) return;
  if (c.paused && c.outbox.size() <= limits_.low_water) {
    c.paused = false;
    again(c);
  }
  if (c.awaits_room) rooms_.check(c);
  if (c.outbox.empty() && c.closing && !c.lingering) finish(c);
}

// Level-triggered only: what is not asked for any more must be taken back, or it is reported
// forever.
void EpollLoop::update_interest(Connection& c) {
  if (config_.edge) return;
  const std::uint32_t wanted = (c.paused || c.eof ? 0U : std::uint32_t{EPOLLIN | EPOLLRDHUP}) |
                               (c.outbox.empty() ? 0U : std::uint32_t{EPOLLOUT});
  if (wanted == c.interest) return;
  c.interest = wanted;
  epoll_event event{wanted, {.u64 = tag(c.id.slot, c.id.generation)}};
  counters_.add(Count::sys_epoll_ctl);
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, c.fd.get(), &event) < 0) end(c, last_error());
}

void EpollLoop::deliver_room() {
  rooms_.deliver(connections_, [this](Connection& c) {
    enter(c).on_room(out_, now_);
    apply(c);
  });
}

// ---- post -------------------------------------------------------------------------------------

void EpollLoop::wake() noexcept {
  counters_.add_shared(Count::sys_wake);
  eventfd_write(wake_.get(), 1);
}

void EpollLoop::push(std::span<const ConnId> ids, const Post& post) noexcept {
  if (mailbox_.push(ids, shard_, post) && mailbox_.take_wake()) wake();
}

void EpollLoop::deliver_posts() {
  mailbox_.deliver(connections_, counters_, [this](Connection& c, const Post& post) {
    enter(c).on_post(out_, post, now_);
    apply(c);
  });
}

// ---- deadlines --------------------------------------------------------------------------------

void EpollLoop::fire_deadlines() {
  std::uint32_t slot = 0;
  while (timers_.pop(now_, slot)) {
    Connection& c = *connections_.at(slot);
    if (c.closing) {
      end(c, c.lingering ? std::error_code() : std::make_error_code(std::errc::timed_out));
    } else {
      counters_.add(Count::deadlines);
      enter(c).on_deadline(out_, now_);
      apply(c);
    }
  }
}

int EpollLoop::timeout_ms() const {
  if (!again_.empty() || !rooms_.empty()) return 0;
  Time next = std::min({timers_.next(), calls_.next(), listen_again_});
  if (draining_) next = std::min(next, stop_.until());
  if (next == kNever) return -1;
  // Not from now_, after which this turn has worked; rounded up: waking early would only mean
  // waiting again.
  const Duration left = next - std::chrono::steady_clock::now();
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
  return static_cast<int>(std::clamp<std::int64_t>(ms, 0, 60'000));
}

// ---- call -------------------------------------------------------------------------------------

void EpollLoop::deliver_replies() {
  calls_.deliver(connections_, [this](Connection& c, const Reply& reply) {
    enter(c).on_reply(out_, reply, now_);
    apply(c);
  });
}

// ---- close ------------------------------------------------------------------------------------

// All is sent and the session has closed. The peer's FIN is awaited, so that no RST overtakes the
// last reply.
void EpollLoop::finish(Connection& c) {
  if (c.eof) return end(c, {});
  counters_.add(Count::sys_shutdown);
  ::shutdown(c.fd.get(), SHUT_WR);
  c.lingering = true;
  timers_.set(c.id.slot, now_ + limits_.linger);
  c.paused = false;
  again(c);
}

// With SO_LINGER at zero, close sends RST and drops what the kernel still has to send (socket(7)).
void EpollLoop::abort(Connection& c) {
  out_.clear();
  const linger none{1, 0};
  counters_.add(Count::sys_sockopt);
  setsockopt(c.fd.get(), SOL_SOCKET, SO_LINGER, &none, sizeof none);
  end(c, std::make_error_code(std::errc::connection_aborted));
}

void EpollLoop::end(Connection& c, std::error_code error) {
  if (c.ended) return;
  c.ended = true;
  if (c.calls > 0) calls_.cancel(c.id);
  timers_.set(c.id.slot, kNever);
  counters_.add(Count::sys_close);
  c.fd.reset();
  counters_.add(Count::closed);
  c.session->on_close(error);
  c.session.reset();
  c.outbox.clear();
  ended_.push_back(c.id.slot);  // its memory may be in use further up the stack
}

// ---- drain ------------------------------------------------------------------------------------

void EpollLoop::stop(Duration grace) noexcept {
  if (stop_.set(grace)) wake();
}

void EpollLoop::drain() {
  draining_ = true;
  listener_ = Listener();
  listen_again_ = kNever;
  connections_.each([this](Connection& c) {
    if (c.ended || c.closing) return;
    enter(c).on_drain(out_, now_);
    apply(c);
  });
}

// ---- run --------------------------------------------------------------------------------------

void EpollLoop::handle(const epoll_event& event) {
  const auto slot = static_cast<std::uint32_t>(event.data.u64);
  if (slot >= EpollCalls::kFirstSlot) {
    if (slot == kListenerSlot) return accept_all();
    return slot == kWakeSlot ? void() : calls_.handle(event);
  }
  Connection* c = connections_.find(slot, static_cast<std::uint32_t>(event.data.u64 >> 32));
  if (c == nullptr || c->ended) return;
  if ((event.events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) c->peer_done = true;
  if ((event.events & EPOLLERR) != 0 && (c->paused || c->eof)) {
    int error = 0;  // nobody is going to read it from recv
    socklen_t length = sizeof error;
    getsockopt(c->fd.get(), SOL_SOCKET, SO_ERROR, &error, &length);
    return end(*c, error_of(error != 0 ? error : ECONNRESET));
  }
  if ((event.events & EPOLLOUT) != 0 && !c->outbox.empty()) flush(*c);
  if ((event.events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) receive(*c);
  if (!c->ended) update_interest(*c);
}

void EpollLoop::run(Service& service) {
  service_ = &service;
  std::array<epoll_event, kEventsPerWait> events;
  now_ = std::chrono::steady_clock::now();
  for (;;) {
    for (const std::uint32_t slot : ended_) connections_.remove(slot);
    ended_.clear();
    if (stop_.requested()) {
      if (!draining_) drain();
      if (now_ >= stop_.until()) {
        connections_.each(
            [this](Connection& c) { end(c, std::make_error_code(std::errc::operation_canceled)); });
      }
      if (connections_.size() == ended_.size()) break;
    }
    const int timeout = mailbox_.sleep() ? timeout_ms() : 0;
    counters_.add(Count::sys_wait);
    const int n = epoll_wait(epoll_.get(), events.data(), kEventsPerWait, timeout);
    mailbox_.awake();
    now_ = std::chrono::steady_clock::now();
    if (n < 0 && errno != EINTR) throw_errno(errno, "epoll_wait failed");
    counters_.batch(static_cast<std::size_t>(std::max(n, 0)));
    for (int i = 0; i < n; ++i) handle(events[static_cast<std::size_t>(i)]);
    turn_.swap(again_);
    for (const ConnId& id : turn_) {
      Connection* c = connections_.find(id.slot, id.generation);
      if (c == nullptr || c->ended) continue;
      c->queued = false;
      receive(*c);
      if (!c->ended) update_interest(*c);
    }
    turn_.clear();
    deliver_posts();
    fire_deadlines();
    if (listen_again_ <= now_) listen(true);
    deliver_replies();
    deliver_room();
  }
  calls_.shut();
}

}  // namespace

std::unique_ptr<Backend> make_epoll(const Spec& spec, const Options& options) {
  return std::make_unique<LoopBackend<EpollLoop, EpollConfig>>(
      options, EpollConfig{.edge = spec.variant != "lt"});
}

}  // namespace echolab
