// threads: blocking. A thread per connection asks the kernel for bytes and sleeps until they come.
//
// Mechanism   recv(2) on an empty socket puts the thread to sleep; the scheduler wakes it when
//             bytes arrive. There is no loop and no readiness: the program counter is the
//             connection's state. A session that is posted to costs a second thread, which waits
//             on a condition variable and sends outside the lock: a thread blocked in recv can do
//             nothing else.
// Kernel      any.
// Buffers     One receive buffer per connection on its thread's stack, of which only the pages
//             that are used exist. A forward is sent from it; the thread blocks until the kernel
//             has it all.
// cost: recvfrom 1, sendto 1
//             And one context switch to this thread, which the other models share between
//             connections.
// Bad at      Many connections: a stack and a scheduler entry each, a switch per request.
//
// threads:pool=N is the classic bounded server: N workers over the kernel's accept queue. It never
// runs out of threads; connection N+1 waits until another one ends.

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "backends/blocking.hpp"
#include "backends/connections.hpp"
#include "backends/models.hpp"
#include "backends/outbox.hpp"
#include "backends/sockets.hpp"

namespace echolab {
namespace {

constexpr std::size_t kReceiveBuffer = 64 * 1024;  // bytes; a whole 64 KiB message in one recv
constexpr std::size_t kGather = 64;                // iovec entries per sendmsg
// Interrupts a blocking call of one thread at drain. shutdown(SHUT_RD) would too, but it ends the
// input for good: the peer's FIN could not be awaited, and closing on unread bytes sends RST.
constexpr int kInterrupt = SIGURG;
// A signal that arrives just before the call blocks is lost, so it is repeated until it was seen.
constexpr auto kInterruptEvery = std::chrono::milliseconds(2);

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
    // A plain connection has one thread and needs no lock. A pushing one guards the rest of this
    // block by `lock`.
    Outbox outbox;
    Time deadline = kNever;
    std::error_code error;
    bool closing = false;  // the session has closed; input is discarded
    bool drained = false;  // on_drain has been called

    bool eof = false;  // recv has returned 0
    SocketTimeout receive_timeout{SO_RCVTIMEO};
    SocketTimeout send_timeout{SO_SNDTIMEO};
    pthread_t thread{};  // whom to interrupt, once started; both under registry_
    bool started = false;
    std::atomic<bool> awake = false;  // has seen the drain and needs no more interrupts
    std::atomic<bool> cut = false;    // the grace period is over
    Counters counters;                // of the thread that reads

    // Only for services that push. session_lock is held during callbacks and taken before lock.
    std::mutex session_lock;
    std::mutex lock;
    std::condition_variable work;  // the writer waits for something to do
    std::condition_variable room;  // the reader waits for the outbox to drain
    std::vector<Post> inbox;
    std::size_t inbox_bytes = 0;
    bool fin_sent = false;
    bool reader_done = false;
    Counters writer_counters;
  };

  Connection* accept_one();
  void receive(Connection& c, Out& out, Input buffer);
  void apply(Connection& c, Out& out);
  void absorb(Connection& c, Out& out, Counters& counters);
  bool send_once(Connection& c, const iovec* entries, std::size_t used, std::size_t& sent,
                 Counters& counters);
  void fire_due(Connection& c, Out& out);
  void await_close(Connection& c, Out& out);
  void read_loop(Connection& c);
  void write_loop(Connection& c);
  template <class Callback>
  bool call_session(Connection& c, Out& out, Counters& counters, Callback&& callback);
  void serve(Connection& c);
  void serve_plain(Connection& c);
  void serve_pushing(Connection& c);
  void finish(Connection& c);
  void end(Connection& c);
  void drain();

  const unsigned pool_;
  const Limits limits_;
  Listener listener_;
  Service* service_ = nullptr;
  std::atomic<bool> stopping_ = false;

  mutable std::mutex registry_;  // guards the rest; taken before a connection's lock
  std::condition_variable changed_;
  Time until_{};  // when the grace period ends
  Connections<Connection> connections_;
  std::vector<std::thread::id> finished_;
  Counters shared_counters_;
  Stats total_;  // of connections that have ended
};

Time now() {
  return std::chrono::steady_clock::now();
}

std::error_code canceled() {
  return std::make_error_code(std::errc::operation_canceled);
}

// ---- setup ------------------------------------------------------------------------------------

ThreadsBackend::ThreadsBackend(const Spec& spec, const Options& options)
    : pool_(spec.value),
      limits_(options.limits),
      listener_(options.host, options.port, Listener::Mode::blocking, false) {
  struct sigaction interrupt {};
  interrupt.sa_handler = [](int) {};  // without SA_RESTART: a blocked call returns EINTR
  sigaction(kInterrupt, &interrupt, nullptr);
}

// ---- accept -----------------------------------------------------------------------------------

ThreadsBackend::Connection* ThreadsBackend::accept_one() {
  Fd fd = listener_.accept(0);
  const int error = errno;
  const std::scoped_lock lock(registry_);
  shared_counters_.add(Count::sys_accept);
  if (!fd) {
    if (error == EMFILE || error == ENFILE) shared_counters_.add(Count::refused);
    return nullptr;
  }
  shared_counters_.add(Count::accepted);
  Connection& c = connections_.add(0);
  c.fd = std::move(fd);
  return &c;
}

// ---- receive ----------------------------------------------------------------------------------

void ThreadsBackend::receive(Connection& c, Out& out, Input buffer) {
  if (stopping_.load(std::memory_order_relaxed)) fire_due(c, out);
  if (c.closing || c.error) return;
  c.receive_timeout.set(c.fd, c.deadline, SocketTimeout::Fit::at_most, c.counters);
  c.counters.add(Count::sys_recv);
  const ssize_t n = ::recv(c.fd.get(), buffer.data(), buffer.size(), 0);
  c.counters.batch(1);
  if (n > 0) {
    const auto size = static_cast<std::size_t>(n);
    c.counters.add(Count::inputs);
    c.counters.add(Count::bytes_in, size);
    c.session->on_bytes(out, buffer.first(size), now());
    apply(c, out);
  } else if (n == 0 && !c.cut) {
    c.eof = true;
    c.session->on_eof(out, now());
    apply(c, out);
  } else if (n == 0) {
    c.error = canceled();
  } else if (errno == EAGAIN || errno == EINTR) {
    if (errno == EAGAIN) {
      c.counters.add(Count::eagain);
      c.receive_timeout.set(c.fd, c.deadline, SocketTimeout::Fit::exact, c.counters);
    }
    fire_due(c, out);
  } else {
    c.error = last_error();
  }
}

// ---- send -------------------------------------------------------------------------------------

// Carries out what one callback asked for: blocks until the kernel has all of it.
void ThreadsBackend::apply(Connection& c, Out& out) {
  std::array<iovec, kGather> entries;
  std::size_t used = std::min(out.pieces(), kGather);
  for (std::size_t i = 0; i < used; ++i) {
    const Bytes bytes = out.bytes(i);
    entries[i] = {const_cast<std::byte*>(bytes.data()), bytes.size()};
  }
  if (out.deadline()) c.deadline = *out.deadline();
  if (out.closing()) c.closing = true;
  std::size_t sent = 0;
  c.send_timeout.set(c.fd, c.deadline, SocketTimeout::Fit::at_most, c.counters);
  if (used > 0 && !send_once(c, entries.data(), used, sent, c.counters)) return out.clear();
  if (sent < out.total()) c.counters.add(Count::bytes_copied, c.outbox.take(out, sent));
  out.clear();
  while (!c.outbox.empty()) {
    if (!c.closing) fire_due(c, out);  // a signal or a deadline ended the last send
    c.send_timeout.set(c.fd, c.deadline, SocketTimeout::Fit::exact, c.counters);
    used = c.outbox.gather(entries.data(), kGather);
    if (!send_once(c, entries.data(), used, sent, c.counters)) return;
    c.outbox.consume(sent);
  }
}

// What a callback asked for when its output must wait behind other output.
void ThreadsBackend::absorb(Connection& c, Out& out, Counters& counters) {
  if (out.deadline()) c.deadline = *out.deadline();
  if (out.closing()) c.closing = true;
  counters.add(Count::bytes_copied, c.outbox.take(out, 0));
  out.clear();
}

// False: the connection is broken and c.error says how.
bool ThreadsBackend::send_once(Connection& c, const iovec* entries, std::size_t used,
                               std::size_t& sent, Counters& counters) {
  const std::error_code error = send_some(c.fd, entries, used, sent, counters);
  if (!error) return true;
  const std::scoped_lock lock(c.lock);
  if (!c.error) c.error = c.cut ? canceled() : error;
  return false;
}

// ---- post -------------------------------------------------------------------------------------

void ThreadsBackend::post(std::span<const ConnId> ids, const Post& post) noexcept {
  const std::size_t size = post.frame ? post.frame->size() : 0;
  const std::scoped_lock registry(registry_);
  for (const ConnId& id : ids) {
    Connection* c = id.shard == 0 ? connections_.find(id.slot, id.generation) : nullptr;
    if (c == nullptr || !service_->pushes()) {
      shared_counters_.add(Count::posts_stale);
      continue;
    }
    const std::scoped_lock lock(c->lock);
    if (c->closing || c->error) {
      shared_counters_.add(Count::posts_stale);
      continue;
    }
    c->inbox.push_back(post);
    c->inbox_bytes += size;
    // The writer may be blocked in a send, so that what waits for it counts as waiting to be sent.
    if (c->inbox_bytes + c->outbox.size() > limits_.outbox_limit) {
      shared_counters_.add(Count::overflows);
      c->error = std::make_error_code(std::errc::no_buffer_space);
      ::shutdown(c->fd.get(), SHUT_RDWR);
      c->room.notify_one();
    }
    c->work.notify_one();
  }
}

// One callback of a session that two threads serve, and its effects. False: it has closed before.
template <class Callback>
bool ThreadsBackend::call_session(Connection& c, Out& out, Counters& counters,
                                  Callback&& callback) {
  const std::scoped_lock session(c.session_lock);
  {
    const std::scoped_lock lock(c.lock);
    if (c.closing || c.error) return false;
  }
  callback();
  const std::scoped_lock lock(c.lock);
  absorb(c, out, counters);
  if (c.outbox.size() + c.inbox_bytes > limits_.outbox_limit && !c.error) {
    counters.add(Count::overflows);
    c.error = std::make_error_code(std::errc::no_buffer_space);
    ::shutdown(c.fd.get(), SHUT_RDWR);
    c.room.notify_one();
  }
  c.work.notify_one();
  return true;
}

// The connection's own thread, when the service pushes: everything but sending.
void ThreadsBackend::read_loop(Connection& c) {
  Out out;
  std::array<std::byte, kReceiveBuffer> buffer;
  for (;;) {
    {
      std::unique_lock lock(c.lock);
      if (c.outbox.size() >= limits_.high_water && !c.closing && !c.error) {
        c.counters.add(Count::pauses);
        c.room.wait(lock, [&] {
          return c.outbox.size() <= limits_.low_water || c.closing || c.error || c.cut;
        });
      }
      if (c.error) return;
    }
    c.counters.add(Count::sys_recv);
    const ssize_t n = ::recv(c.fd.get(), buffer.data(), buffer.size(), 0);
    c.counters.batch(1);
    if (n > 0) {
      const auto size = static_cast<std::size_t>(n);
      call_session(c, out, c.counters, [&] {
        c.counters.add(Count::inputs);
        c.counters.add(Count::bytes_in, size);
        c.session->on_bytes(out, Input(buffer).first(size), now());
      });
      continue;
    }
    if (n < 0 && errno == EINTR) continue;
    const int failed = n < 0 ? errno : 0;
    if (failed != 0 || c.cut) {
      const std::scoped_lock lock(c.lock);
      if (!c.error) c.error = c.cut ? canceled() : error_of(failed);
      c.work.notify_one();
      return;
    }
    break;
  }
  c.eof = true;
  call_session(c, out, c.counters, [&] { c.session->on_eof(out, now()); });
  // Nothing more to read, but a reset, or the writer's own FIN, still shows as a hang-up.
  while (!await_hangup(c.fd, kNever, c.counters)) {
  }
  const std::scoped_lock lock(c.lock);
  if (!c.fin_sent && !c.error) c.error = c.cut ? canceled() : pending_error(c.fd);
  c.work.notify_one();
}

// The second thread: posts, deadlines, drain, and all sending.
void ThreadsBackend::write_loop(Connection& c) {
  Out out;
  std::vector<Post> posts;
  std::array<iovec, kGather> entries;
  const auto due = [&] { return c.deadline != kNever && now() >= c.deadline; };
  const auto draining = [&] { return stopping_ && !c.drained; };
  std::unique_lock lock(c.lock);
  for (;;) {
    const auto ready = [&] {
      return c.error || c.cut || c.closing || !c.inbox.empty() || !c.outbox.empty() || draining();
    };
    if (c.deadline == kNever) {
      c.work.wait(lock, [&] { return ready() || c.deadline != kNever; });
    } else {
      const Time deadline = c.deadline;
      c.work.wait_until(lock, deadline, [&] { return ready() || c.deadline != deadline; });
    }
    c.writer_counters.add(Count::wakeups);
    if (c.error || c.cut) break;
    if (!c.closing && draining()) {
      c.drained = true;
      lock.unlock();
      call_session(c, out, c.writer_counters, [&] { c.session->on_drain(out, now()); });
      lock.lock();
    } else if (!c.closing && due()) {
      lock.unlock();
      call_session(c, out, c.writer_counters, [&] {
        {
          const std::scoped_lock again(c.lock);
          if (!due()) return;  // the reader's callback has just replaced it
          c.deadline = kNever;
        }
        c.writer_counters.add(Count::deadlines);
        c.session->on_deadline(out, now());
      });
      lock.lock();
    } else if (!c.outbox.empty()) {
      const std::size_t used = c.outbox.gather(entries.data(), kGather);
      const Time deadline = c.closing ? kNever : c.deadline;
      lock.unlock();
      std::size_t sent = 0;
      c.send_timeout.set(c.fd, deadline, SocketTimeout::Fit::exact, c.writer_counters);
      send_once(c, entries.data(), used, sent, c.writer_counters);
      lock.lock();
      c.outbox.consume(sent);
      if (c.outbox.size() <= limits_.low_water) c.room.notify_one();
    } else if (!c.closing && !c.inbox.empty()) {
      posts.swap(c.inbox);
      c.inbox_bytes = 0;
      lock.unlock();
      for (const Post& post : posts) {
        const bool delivered =
            call_session(c, out, c.writer_counters, [&] { c.session->on_post(out, post, now()); });
        c.writer_counters.add(delivered ? Count::posts : Count::posts_stale);
      }
      posts.clear();
      lock.lock();
    } else if (c.closing) {
      break;
    }
  }
  if (!c.error && !c.cut) {
    c.fin_sent = true;
    c.writer_counters.add(Count::sys_shutdown);
    ::shutdown(c.fd.get(), SHUT_WR);
    c.work.wait_for(lock, limits_.linger, [&] { return c.reader_done || c.cut; });
  }
  if (!c.reader_done) ::shutdown(c.fd.get(), SHUT_RDWR);  // ends its recv
  c.room.notify_one();
}

// ---- deadlines --------------------------------------------------------------------------------

// Runs what has become due while a plain connection's thread was blocked: drain, then its deadline.
void ThreadsBackend::fire_due(Connection& c, Out& out) {
  const auto carry_out = [&] { c.outbox.empty() ? apply(c, out) : absorb(c, out, c.counters); };
  if (stopping_ && !c.drained && !c.closing) {
    c.drained = true;
    c.awake = true;
    c.session->on_drain(out, now());
    carry_out();
  }
  if (c.deadline == kNever || c.closing || c.error) return;
  const Time at = now();
  if (at < c.deadline) return;
  c.deadline = kNever;
  c.counters.add(Count::deadlines);
  c.session->on_deadline(out, at);
  carry_out();
}

// The peer sends no more and the session has not closed: only time, a drain or a reset can end it.
void ThreadsBackend::await_close(Connection& c, Out& out) {
  while (!c.closing && !c.error) {
    fire_due(c, out);
    if (c.closing || c.error) return;
    if (await_hangup(c.fd, c.deadline, c.counters)) {
      c.error = c.cut ? canceled() : pending_error(c.fd);
    }
  }
}

// ---- close ------------------------------------------------------------------------------------

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
  c.counters.add(Count::sys_close);
  c.counters.add(Count::closed);
  const std::scoped_lock lock(registry_);
  total_.add(c.counters);
  total_.add(c.writer_counters);
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
        ::shutdown(c.fd.get(), SHUT_RDWR);
        c.awake = false;
      }
      if (c.awake || !c.started) return;
      if (service_->pushes()) {
        const std::scoped_lock connection(c.lock);
        c.awake = true;
        c.work.notify_one();
        c.room.notify_one();
      } else {
        pthread_kill(c.thread, kInterrupt);
      }
    });
    changed_.wait_for(lock, kInterruptEvery);
  }
}

// ---- run --------------------------------------------------------------------------------------

void ThreadsBackend::serve_plain(Connection& c) {
  Out out;
  std::array<std::byte, kReceiveBuffer> buffer;
  c.session->on_open(out, c.id, now());
  apply(c, out);
  while (!c.closing && !c.error && !c.eof) receive(c, out, buffer);
  if (!c.error) await_close(c, out);
  if (!c.error) finish(c);
}

void ThreadsBackend::serve_pushing(Connection& c) {
  Out out;
  call_session(c, out, c.counters, [&] { c.session->on_open(out, c.id, now()); });
  try {
    std::jthread writer([this, &c] { write_loop(c); });
    read_loop(c);
    const std::scoped_lock lock(c.lock);
    c.reader_done = true;
    c.work.notify_one();
  } catch (const std::system_error& error) {  // no second thread to be had
    c.error = error.code();
  }
  if (!c.error && c.cut) c.error = canceled();
}

void ThreadsBackend::serve(Connection& c) {
  {
    const std::scoped_lock lock(registry_);
    c.session = service_->accept();
    c.thread = pthread_self();
    c.started = true;
  }
  service_->pushes() ? serve_pushing(c) : serve_plain(c);
  end(c);
}

void ThreadsBackend::run(Service& service) {
  service_ = &service;
  std::vector<std::jthread> pool;
  for (unsigned i = 0; i < pool_; ++i) {
    pool.emplace_back([this] {
      while (!stopping_) {
        if (Connection* c = accept_one()) serve(*c);
      }
    });
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
      shared_counters_.add(Count::refused);
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
    s.add(c.writer_counters);
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
