// threads: blocking. A thread per connection asks the kernel for bytes and sleeps until they come.
//
// Mechanism   recv(2) on an empty socket puts the thread to sleep; the scheduler wakes it when
//             bytes arrive. There is no loop and no readiness: the program counter is the
//             connection's state. A session that is posted to costs a second thread (duplex.hpp):
//             one that is blocked in recv can do nothing else. A session that calls an upstream
//             waits for the reply as it waits for input: asleep, and deaf to everything else.
// Kernel      any.
// Buffers     One receive buffer per connection on its thread's stack, of which only the pages
//             that are used exist. A forward is sent from it; the thread blocks until the kernel
//             has it all.
// cost: recvfrom 1, sendto 1
//             And one context switch to this thread, which the other models share between
//             connections.
// Bad at      Many connections: a stack and a scheduler entry each, a switch per request. Calls to
//             upstreams: one at a time per connection, and nothing else happens on it meanwhile.
//
// threads:pool=N is the classic bounded server: N workers over the kernel's accept queue. It never
// runs out of threads; connection N+1 waits until another one ends.

#include <pthread.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "backends/blocking.hpp"
#include "backends/connections.hpp"
#include "backends/duplex.hpp"
#include "backends/models.hpp"
#include "backends/outbox.hpp"
#include "backends/sockets.hpp"
#include "backends/upstreams.hpp"

namespace echolab {
namespace {

class ThreadsBackend final : public Backend {
 public:
  ThreadsBackend(const Spec& spec, const Options& options);
  [[nodiscard]] std::uint16_t port() const noexcept override { return listener_.port(); }
  void run(Service& service) override;
  void stop(Duration grace) noexcept override;
  void post(std::span<const ConnId> ids, const Post& post) noexcept override;
  [[nodiscard]] Stats stats() const override;

 private:
  // ---- Connection -----------------------------------------------------------------------------
  struct Connection {
    ConnId id;
    Fd fd;
    std::unique_ptr<Session> session;
    std::unique_ptr<Duplex> duplex;  // if the service pushes: serves it in place of the rest
    Outbox outbox;
    Time deadline = kNever;
    Time flushed_by = kNever;  // if closing: the peer must take more by then
    std::error_code error;
    bool closing = false;      // the session has closed; input is discarded
    bool drained = false;      // on_drain has been called
    bool eof = false;          // recv has returned 0
    bool awaits_room = false;  // on_room is due
    std::vector<PendingCall> calls;
    Cancellation cancellation;
    SocketTimeout receive_timeout{SO_RCVTIMEO};
    SocketTimeout send_timeout{SO_SNDTIMEO};
    Counters counters;

    pthread_t thread{};  // whom to interrupt, once started; both under registry_
    bool started = false;
    std::atomic<bool> awake = false;  // has seen the drain and needs no more interrupts
    std::atomic<bool> cut = false;    // the grace period is over

    // Something is to be done before the thread may wait for input.
    [[nodiscard]] bool busy() const { return awaits_room || !calls.empty(); }
  };

  Connection* accept_one();
  void receive(Connection& c, Out& out, Input buffer);
  template <class Callback>
  void call_session(Connection& c, Out& out, Callback&& callback);
  void note(Connection& c, Out& out);
  void apply(Connection& c, Out& out);
  void absorb(Connection& c, Out& out, std::size_t sent);
  bool send_once(Connection& c, const iovec* entries, std::size_t used, std::size_t& sent,
                 int flags);
  void give_room(Connection& c, Out& out);
  void fire_due(Connection& c, Out& out);
  void ask(Connection& c, Out& out);
  void await_close(Connection& c, Out& out);
  void serve(Connection& c);
  void serve_plain(Connection& c);
  void finish(Connection& c);
  void end(Connection& c);
  void drain();

  const unsigned pool_;
  const Limits limits_;
  Listener listener_;
  Service* service_ = nullptr;
  std::atomic<bool> stopping_ = false;
  Upstreams upstreams_;

  mutable std::mutex registry_;  // guards the rest; taken before a connection's lock
  std::condition_variable changed_;
  Time until_{};  // when the grace period ends
  Connections<Connection> connections_;
  std::vector<std::thread::id> finished_;
  Counters shared_counters_;
  Stats total_;  // of connections that have ended
};

// ---- setup ------------------------------------------------------------------------------------

ThreadsBackend::ThreadsBackend(const Spec& spec, const Options& options)
    : pool_(spec.value),
      limits_(options.limits),
      listener_(options.host, options.port, Listener::Mode::blocking, false) {
  shared_counters_.on_refused = options.on_refused;
  struct sigaction interrupt {};
  interrupt.sa_handler = [](int) {};  // without SA_RESTART: a blocked call returns EINTR
  sigaction(kInterrupt, &interrupt, nullptr);
}

// ---- accept -----------------------------------------------------------------------------------

ThreadsBackend::Connection* ThreadsBackend::accept_one() {
  Fd fd = listener_.accept(0);
  const int error = errno;
  if (!fd && (error == ENOBUFS || error == ENOMEM)) std::this_thread::sleep_for(Listener::kRetry);
  const std::scoped_lock lock(registry_);
  shared_counters_.add(Count::sys_accept);
  if (!fd) {
    if (error == EMFILE || error == ENFILE) shared_counters_.refuse();
    return nullptr;
  }
  shared_counters_.add(Count::accepted);
  Connection& c = connections_.add(0);
  c.fd = std::move(fd);
  return &c;
}

// ---- receive ----------------------------------------------------------------------------------

void ThreadsBackend::receive(Connection& c, Out& out, Input buffer) {
  // Input that never ends must not keep a deadline waiting for a recv that times out.
  if (c.deadline != kNever || stopping_.load(std::memory_order_relaxed)) fire_due(c, out);
  if (c.closing || c.error) return;
  const bool busy = c.busy();  // then input is only looked for
  c.receive_timeout.set(c.fd, c.deadline, SocketTimeout::Fit::at_most, c.counters);
  c.counters.add(Count::sys_recv);
  const ssize_t n = ::recv(c.fd.get(), buffer.data(), buffer.size(), busy ? MSG_DONTWAIT : 0);
  c.counters.batch(1);
  if (n > 0) {
    const auto size = static_cast<std::size_t>(n);
    c.counters.add(Count::inputs);
    c.counters.add(Count::bytes_in, size);
    call_session(c, out, [&](Time at) { c.session->on_bytes(out, buffer.first(size), at); });
  } else if (n == 0 && !c.cut) {
    c.eof = true;
    call_session(c, out, [&](Time at) { c.session->on_eof(out, at); });
  } else if (n == 0) {
    c.error = canceled();
  } else if (errno == EAGAIN || errno == EINTR) {
    if (errno == EAGAIN) {
      c.counters.add(Count::eagain);
      if (!busy) c.receive_timeout.set(c.fd, c.deadline, SocketTimeout::Fit::exact, c.counters);
    }
    fire_due(c, out);
  } else {
    c.error = last_error();
  }
}

// One callback and its effects.
template <class Callback>
void ThreadsBackend::call_session(Connection& c, Out& out, Callback&& callback) {
  out.set_queued(c.outbox.size());
  callback(now());
  note(c, out);
  c.outbox.empty() ? apply(c, out) : absorb(c, out, 0);
}

// ---- send -------------------------------------------------------------------------------------

// What a callback asked for beside sending.
void ThreadsBackend::note(Connection& c, Out& out) {
  if (out.aborting()) c.error = std::make_error_code(std::errc::connection_aborted);
  if (out.deadline()) c.deadline = *out.deadline();
  if (out.awaits_room()) c.awaits_room = true;
  if (out.closing()) {
    c.closing = true;
    c.flushed_by = now() + limits_.flush;
  }
  for (Out::Call& call : out.calls()) c.calls.emplace_back(std::move(call));
}

// Sends what one callback asked for: blocks until the kernel has all of it.
void ThreadsBackend::apply(Connection& c, Out& out) {
  if (c.error) return out.clear();
  std::array<iovec, kGather> entries;
  std::size_t used = std::min(out.pieces(), kGather);
  for (std::size_t i = 0; i < used; ++i) {
    const Bytes bytes = out.bytes(i);
    entries[i] = {const_cast<std::byte*>(bytes.data()), bytes.size()};
  }
  std::size_t sent = 0;
  if (!c.closing) c.send_timeout.set(c.fd, c.deadline, SocketTimeout::Fit::at_most, c.counters);
  // Most last words fit, and then their time limit need not be set.
  const int flags = c.closing ? MSG_DONTWAIT : 0;
  if (used > 0 && !send_once(c, entries.data(), used, sent, flags)) return out.clear();
  absorb(c, out, sent);
  while (!c.outbox.empty() && !c.error) {
    if (!c.closing) fire_due(c, out);  // a signal or a deadline ended the last send
    if (c.error) return;
    const Time until = c.closing ? c.flushed_by : c.deadline;
    c.send_timeout.set(c.fd, until, SocketTimeout::Fit::exact, c.counters);
    used = c.outbox.gather(entries.data(), kGather);
    if (!send_once(c, entries.data(), used, sent, 0)) return;
    c.outbox.consume(sent);
    if (!c.closing) continue;
    if (sent > 0) {
      c.flushed_by = now() + limits_.flush;
    } else if (now() >= c.flushed_by) {
      c.error = std::make_error_code(std::errc::timed_out);
    }
  }
}

// Queues what is not sent: behind what waits already, if a callback came while it was being sent.
void ThreadsBackend::absorb(Connection& c, Out& out, std::size_t sent) {
  if (sent < out.total()) c.counters.add(Count::bytes_copied, c.outbox.take(out, sent));
  out.clear();
  if (c.error || c.outbox.size() <= limits_.outbox_limit) return;
  c.counters.add(Count::overflows);
  c.error = std::make_error_code(std::errc::no_buffer_space);
}

// False: the connection is broken and c.error says how.
bool ThreadsBackend::send_once(Connection& c, const iovec* entries, std::size_t used,
                               std::size_t& sent, int flags) {
  const std::error_code error = send_some(c.fd, entries, used, sent, c.counters, flags);
  if (error) c.error = c.cut ? canceled() : error;
  return !error;
}

// All is sent by now. The caller looks for input between two of these, so that a session that sends
// without end still hears its peer.
void ThreadsBackend::give_room(Connection& c, Out& out) {
  if (!c.awaits_room || c.closing || c.error) return;
  c.awaits_room = false;
  call_session(c, out, [&](Time at) { c.session->on_room(out, at); });
}

// ---- post -------------------------------------------------------------------------------------

void ThreadsBackend::post(std::span<const ConnId> ids, const Post& post) noexcept {
  const std::scoped_lock registry(registry_);
  for (const ConnId& id : ids) {
    const Connection* c = id.shard == 0 ? connections_.find(id.slot, id.generation) : nullptr;
    const bool pushing = c != nullptr && c->duplex;
    switch (pushing ? c->duplex->post(post) : Duplex::Posted::stale) {
      case Duplex::Posted::queued:
        break;
      case Duplex::Posted::stale:
        shared_counters_.add(Count::posts_stale);
        break;
      case Duplex::Posted::overflow:
        shared_counters_.add(Count::overflows);
        break;
    }
  }
}

// ---- deadlines --------------------------------------------------------------------------------

// Runs what has become due while a plain connection's thread was blocked: drain, then its deadline.
void ThreadsBackend::fire_due(Connection& c, Out& out) {
  if (stopping_ && !c.drained && !c.closing) {
    c.drained = true;
    c.awake = true;
    call_session(c, out, [&](Time at) { c.session->on_drain(out, at); });
  }
  if (c.deadline == kNever || c.closing || c.error) return;
  if (now() < c.deadline) return;
  c.deadline = kNever;
  c.counters.add(Count::deadlines);
  call_session(c, out, [&](Time at) { c.session->on_deadline(out, at); });
}

// ---- call -------------------------------------------------------------------------------------

// The next call. The thread waits for the reply, or for the end of the connection.
void ThreadsBackend::ask(Connection& c, Out& out) {
  if (c.calls.empty() || c.closing || c.error) return;
  const PendingCall pending = std::move(c.calls.front());
  c.calls.erase(c.calls.begin());
  const Answer answer = upstreams_.call(pending, c.fd.get(), c.cancellation, c.counters);
  if (answer.error == std::errc::operation_canceled) {
    c.error = c.cut ? canceled() : pending_error(c.fd);
  } else {
    answer.count(c.counters);
    call_session(c, out, [&](Time at) { c.session->on_reply(out, answer.reply(), at); });
  }
}

// ---- close ------------------------------------------------------------------------------------

// The peer sends no more and the session has not closed: only time, a drain, a reply or a reset can
// end it.
void ThreadsBackend::await_close(Connection& c, Out& out) {
  fire_due(c, out);
  if (c.closing || c.error) return;
  if (await_hangup(c.fd, c.busy() ? now() : c.deadline, c.counters)) {
    c.error = c.cut ? canceled() : pending_error(c.fd);
  }
}

// All is sent and the session has closed. The peer's FIN is awaited, so that no RST overtakes the
// last reply.
void ThreadsBackend::finish(Connection& c) {
  c.awake = true;
  if (c.eof) return;
  c.counters.add(Count::sys_shutdown);
  ::shutdown(c.fd.get(), SHUT_WR);
  std::array<std::byte, 4096> discarded;
  const Time until = now() + limits_.linger;
  for (;;) {
    if (c.cut) c.error = canceled();
    if (c.cut || now() >= until) return;
    c.receive_timeout.set(c.fd, until, SocketTimeout::Fit::exact, c.counters);
    c.counters.add(Count::sys_recv);
    const ssize_t n = ::recv(c.fd.get(), discarded.data(), discarded.size(), 0);
    if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) return;
  }
}

void ThreadsBackend::end(Connection& c) {
  c.session->on_close(c.error);
  c.session.reset();
  if (c.error == std::errc::connection_aborted) reset_on_close(c.fd, c.counters);
  c.counters.add(Count::sys_close);
  c.counters.add(Count::closed);
  const std::scoped_lock lock(registry_);
  total_.add(c.counters);
  if (c.duplex) c.duplex->add_to(total_);
  if (pool_ == 0) finished_.push_back(std::this_thread::get_id());
  connections_.remove(c.id.slot);
  changed_.notify_one();
}

// ---- drain ------------------------------------------------------------------------------------

void ThreadsBackend::stop(Duration grace) noexcept {
  const std::scoped_lock lock(registry_);
  if (stopping_) return;
  until_ = now() + grace;
  stopping_ = true;
  listener_.shut();
  changed_.notify_one();
}

void ThreadsBackend::drain() {
  std::unique_lock lock(registry_);
  changed_.wait(lock, [this] { return stopping_.load(); });
  while (connections_.size() > 0) {
    const bool over = now() >= until_;
    connections_.each([&](Connection& c) {
      if (over && !c.cut.exchange(true)) {
        c.awake = false;
        c.cancellation.cancel();
        c.duplex ? c.duplex->cut() : void(::shutdown(c.fd.get(), SHUT_RDWR));
      }
      if (c.awake || !c.started) return;
      if (c.duplex) {
        c.awake = true;
        c.duplex->drain();
      } else {
        pthread_kill(c.thread, kInterrupt);
      }
    });
    changed_.wait_for(lock, kInterruptEvery);
  }
  upstreams_.shut();
}

// ---- run --------------------------------------------------------------------------------------

void ThreadsBackend::serve_plain(Connection& c) {
  Out out;
  std::array<std::byte, kReceiveBuffer> buffer;
  call_session(c, out, [&](Time at) { c.session->on_open(out, c.id, at); });
  while (!c.closing && !c.error) {
    if (c.busy()) {
      give_room(c, out);
      ask(c, out);
    }
    if (!c.eof) {
      receive(c, out, buffer);
    } else {
      await_close(c, out);
    }
  }
  if (!c.error) finish(c);
}

void ThreadsBackend::serve(Connection& c) {
  c.session = service_->accept();
  {
    const std::scoped_lock lock(registry_);
    if (service_->pushes()) {
      c.duplex = std::make_unique<Duplex>(c.fd, c.id, *c.session, limits_, upstreams_);
    }
    c.thread = pthread_self();
    c.started = true;
  }
  if (c.duplex) {
    c.error = c.duplex->serve();
  } else {
    serve_plain(c);
  }
  end(c);
}

void ThreadsBackend::run(Service& service) {
  service_ = &service;
  std::vector<std::jthread> pool;
  try {
    for (unsigned i = 0; i < pool_; ++i) {
      pool.emplace_back([this] {
        while (!stopping_) {
          if (Connection* c = accept_one()) serve(*c);
        }
      });
    }
  } catch (const std::system_error& error) {
    stop(Duration::zero());
    drain();
    throw std::system_error(error.code(), "cannot start a thread for each worker of the pool");
  }
  if (pool_ > 0) return drain();
  std::unordered_map<std::thread::id, std::jthread> threads;
  while (!stopping_) {
    Connection* c = accept_one();
    std::vector<std::thread::id> finished;
    {
      const std::scoped_lock lock(registry_);
      finished.swap(finished_);
    }
    for (const std::thread::id id : finished) threads.erase(id);  // joins
    if (c == nullptr) continue;
    try {
      std::jthread thread([this, c] { serve(*c); });
      const std::thread::id id = thread.get_id();
      threads.emplace(id, std::move(thread));
    } catch (const std::system_error&) {  // the wall of this model: no more threads
      const std::scoped_lock lock(registry_);
      shared_counters_.refuse();
      shared_counters_.add(Count::closed);
      connections_.remove(c->id.slot);
    }
  }
  drain();
}

Stats ThreadsBackend::stats() const {
  const std::scoped_lock lock(registry_);
  Stats s = total_;
  s.add(shared_counters_);
  connections_.each([&](const Connection& c) {
    s.add(c.counters);
    if (c.duplex) c.duplex->add_to(s);
  });
  s.features = {
      {"bounded_pool", pool_ > 0, pool_ > 0, pool_ > 0 ? std::to_string(pool_) + " workers" : ""}};
  return s;
}

}  // namespace

std::unique_ptr<Backend> make_threads(const Spec& spec, const Options& options) {
  return std::make_unique<ThreadsBackend>(spec, options);
}

}  // namespace echolab
