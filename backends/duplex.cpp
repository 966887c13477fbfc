#include "backends/duplex.hpp"

#include <pthread.h>

#include <array>
#include <thread>

namespace echolab {

// ---- call the session -------------------------------------------------------------------------

// One callback and its effects, if the session has not closed and `ready` holds, which is asked
// under the lock. False: it was not called.
template <class Ready, class Callback>
bool Duplex::call_session(Side& side, Ready&& ready, Callback&& callback) {
  const std::scoped_lock session(session_lock_);
  {
    const std::scoped_lock lock(lock_);
    if (closing_ || error_ || !ready()) return false;
    side.out.set_queued(outbox_.size());
  }
  callback(side.out, now());
  const std::scoped_lock lock(lock_);
  absorb(side);
  return true;
}

// What a callback asked for. The writer carries it out; calls are for the thread that asked.
void Duplex::absorb(Side& side) {
  Out& out = side.out;
  if (out.aborting()) {
    aborted_ = true;
    fail(std::make_error_code(std::errc::connection_aborted));
    return out.clear();
  }
  if (out.deadline()) deadline_ = *out.deadline();
  if (out.awaits_room()) awaits_room_ = true;
  for (Out::Call& call : out.calls()) side.calls.emplace_back(std::move(call));
  side.counters.add(Count::bytes_copied, outbox_.take(out, 0));
  if (out.closing()) {
    closing_ = true;
    flushed_by_ = now() + limits_.flush;
    cancellation_.cancel();  // nobody waits for these replies any more, and the writer has a FIN
  }
  out.clear();
  if (outbox_.size() + inbox_bytes_ > limits_.outbox_limit) overflow(side.counters);
  wake_writer();
}

// Under lock_. The writer waits for work, or for the kernel.
void Duplex::wake_writer() {
  writer_.wake.notify_one();
  if (blocked_) pthread_kill(writer_thread_, kInterrupt);
}

void Duplex::fail(std::error_code error) {
  if (!error_) error_ = error;
  cancellation_.cancel();
  reader_.wake.notify_one();
  wake_writer();
}

void Duplex::overflow(Counters& counters) {
  if (error_) return;
  counters.add(Count::overflows);
  fail(std::make_error_code(std::errc::no_buffer_space));
  ::shutdown(fd_.get(), SHUT_RDWR);
}

// ---- receive ----------------------------------------------------------------------------------

void Duplex::read_loop() {
  std::array<std::byte, kReceiveBuffer> buffer;
  while (await_room() && receive(buffer)) ask(reader_);
  call_session(reader_, [&](Out& out, Time at) { session_.on_eof(out, at); });
  // Nothing more to read, but a reset, or the writer's own FIN, still shows as a hang-up.
  while (await_room()) {
    ask(reader_);
    if (!await_hangup(fd_, reader_.calls.empty() ? kNever : now(), reader_.counters)) continue;
    const std::scoped_lock lock(lock_);
    if (!fin_sent_) fail(cut_ ? canceled() : pending_error(fd_));
    return;
  }
}

// Stops reading while too much waits to be sent. False: the connection is broken.
bool Duplex::await_room() {
  std::unique_lock lock(lock_);
  if (outbox_.size() >= limits_.high_water && !closing_ && !error_) {
    reader_.counters.add(Count::pauses);
    reader_.wake.wait(
        lock, [&] { return outbox_.size() <= limits_.low_water || closing_ || error_ || cut_; });
  }
  return !error_;
}

// False: there is no more to come.
bool Duplex::receive(Input buffer) {
  reader_.counters.add(Count::sys_recv);
  // With calls to make, input is only looked for.
  const ssize_t n =
      ::recv(fd_.get(), buffer.data(), buffer.size(), reader_.calls.empty() ? 0 : MSG_DONTWAIT);
  reader_.counters.batch(1);
  if (n > 0) {
    const auto size = static_cast<std::size_t>(n);
    call_session(reader_, [&](Out& out, Time at) {
      reader_.counters.add(Count::inputs);
      reader_.counters.add(Count::bytes_in, size);
      session_.on_bytes(out, buffer.first(size), at);
    });
    return true;
  }
  if (n < 0 && errno == EINTR) return true;
  if (n < 0 && errno == EAGAIN) {
    reader_.counters.add(Count::eagain);
    return true;
  }
  const std::error_code error = n < 0 ? last_error() : std::error_code();
  const std::scoped_lock lock(lock_);
  if (error || cut_) fail(cut_ ? canceled() : error);
  return false;
}

// ---- send -------------------------------------------------------------------------------------

// Each pass gives all that there is to do its turn.
void Duplex::write_loop() {
  std::vector<Post> posts;
  for (;;) {
    bool drain = false;
    bool timer = false;
    bool space = false;
    {
      std::unique_lock lock(lock_);
      await_work(lock);
      writer_.counters.add(Count::wakeups);
      if (closing_ && full_ && now() >= flushed_by_) {
        fail(std::make_error_code(std::errc::timed_out));
      }
      if (error_ || cut_ || (closing_ && outbox_.empty())) {
        writer_.counters.add(Count::posts_stale, inbox_.size());
        inbox_.clear();
        break;
      }
      drain = draining();
      timer = due();
      space = room();
      posts.swap(inbox_);
      inbox_bytes_ = 0;
    }
    if (drain) {
      call_session(
          writer_, [&] { return drained_ = true; },
          [&](Out& out, Time at) { session_.on_drain(out, at); });
    }
    if (timer) {
      const auto ready = [&] {
        if (!due()) return false;  // the reader's callback has just replaced it
        deadline_ = kNever;
        return true;
      };
      call_session(writer_, ready, [&](Out& out, Time at) {
        writer_.counters.add(Count::deadlines);
        session_.on_deadline(out, at);
      });
    }
    for (const Post& post : posts) {
      const bool delivered =
          call_session(writer_, [&](Out& out, Time at) { session_.on_post(out, post, at); });
      writer_.counters.add(delivered ? Count::posts : Count::posts_stale);
    }
    posts.clear();
    if (space) {
      const auto ready = [&] { return room() && std::exchange(awaits_room_, false); };
      call_session(writer_, ready, [&](Out& out, Time at) { session_.on_room(out, at); });
    }
    send();
    ask(writer_);
  }
}

void Duplex::await_work(std::unique_lock<std::mutex>& lock) {
  const auto ready = [&] {
    if (error_ || cut_ || !writer_.calls.empty()) return true;
    if (outbox_.empty() ? closing_ : !full_) return true;
    return !closing_ && (draining() || room() || !inbox_.empty());
  };
  while (!ready()) {
    const Time deadline = closing_ ? flushed_by_ : deadline_;
    if (deadline != kNever && now() >= deadline) return;
    if (full_) {
      writer_thread_ = pthread_self();
      blocked_ = true;
      lock.unlock();
      full_ = !await_writable(fd_, deadline, uninterrupted_, writer_.counters);
      lock.lock();
      blocked_ = false;
    } else if (deadline == kNever) {
      writer_.wake.wait(lock);
    } else {
      writer_.wake.wait_until(lock, deadline);
    }
  }
}

void Duplex::send() {
  std::array<iovec, kGather> entries;
  std::size_t used = 0;
  {
    const std::scoped_lock lock(lock_);
    if (error_ || full_) return;
    used = outbox_.gather(entries.data(), kGather);
  }
  if (used == 0) return;
  std::size_t wanted = 0;
  for (std::size_t i = 0; i < used; ++i) wanted += entries[i].iov_len;
  std::size_t sent = 0;
  const std::error_code error =
      send_some(fd_, entries.data(), used, sent, writer_.counters, MSG_DONTWAIT);
  const std::scoped_lock lock(lock_);
  full_ = sent < wanted;
  outbox_.consume(sent);
  if (closing_ && sent > 0) flushed_by_ = now() + limits_.flush;
  if (error) fail(cut_ ? canceled() : error);
  if (outbox_.size() <= limits_.low_water) reader_.wake.notify_one();
}

// ---- post -------------------------------------------------------------------------------------

Duplex::Posted Duplex::post(const Post& post) {
  const std::scoped_lock lock(lock_);
  if (closing_ || error_ || cut_) return Posted::stale;
  inbox_.push_back(post);
  inbox_bytes_ += post.frame ? post.frame->size() : 0;
  wake_writer();
  // The writer may be busy with a call, so that what waits for it counts as waiting to be sent.
  if (inbox_bytes_ + outbox_.size() <= limits_.outbox_limit) return Posted::queued;
  fail(std::make_error_code(std::errc::no_buffer_space));
  ::shutdown(fd_.get(), SHUT_RDWR);
  return Posted::overflow;
}

// ---- call -------------------------------------------------------------------------------------

// The next call of this thread, which waits for the reply: the other one goes on meanwhile.
void Duplex::ask(Side& side) {
  if (side.calls.empty()) return;
  const PendingCall pending = std::move(side.calls.front());
  side.calls.erase(side.calls.begin());
  const Answer answer = upstreams_.call(pending, fd_.get(), cancellation_, side.counters);
  if (answer.error == std::errc::operation_canceled) return;  // the reader sees why
  call_session(side, [&](Out& out, Time at) {
    answer.count(side.counters);
    session_.on_reply(out, answer.reply(), at);
  });
}

// ---- close ------------------------------------------------------------------------------------

// The writer's end: all is sent and the session has closed, or the connection is broken. The peer's
// FIN is awaited, so that no RST overtakes the last reply.
void Duplex::finish() {
  std::unique_lock lock(lock_);
  if (!error_ && !cut_) {
    fin_sent_ = true;
    writer_.counters.add(Count::sys_shutdown);
    ::shutdown(fd_.get(), SHUT_WR);
    writer_.wake.wait_for(lock, limits_.linger, [&] { return reader_.done || cut_; });
  }
  if (!reader_.done && !aborted_) ::shutdown(fd_.get(), SHUT_RDWR);  // ends its recv
}

// The other thread may be blocked by the kernel, which an abort must not wait for.
void Duplex::leave(Side& own, Side& other, pthread_t thread) {
  std::unique_lock lock(lock_);
  own.done = true;
  other.wake.notify_one();
  while (aborted_ && !other.done) {
    pthread_kill(thread, kInterrupt);
    own.wake.wait_for(lock, kInterruptEvery);
  }
}

// ---- drain ------------------------------------------------------------------------------------

void Duplex::drain() {
  const std::scoped_lock lock(lock_);
  draining_ = true;
  wake_writer();
}

void Duplex::cut() {
  const std::scoped_lock lock(lock_);
  cut_ = true;
  ::shutdown(fd_.get(), SHUT_RDWR);
  cancellation_.cancel();
  reader_.wake.notify_one();
  wake_writer();
}

// ---- run --------------------------------------------------------------------------------------

std::error_code Duplex::serve() {
  call_session(reader_, [&](Out& out, Time at) { session_.on_open(out, id_, at); });
  try {
    std::jthread writer([this, reader = pthread_self()] {
      block_interrupts(uninterrupted_);
      write_loop();
      finish();
      leave(writer_, reader_, reader);
    });
    read_loop();
    leave(reader_, writer_, writer.native_handle());
  } catch (const std::system_error& error) {  // no second thread to be had
    return error.code();
  }
  return !error_ && cut_ ? canceled() : error_;
}

void Duplex::add_to(Stats& stats) const {
  stats.add(reader_.counters);
  stats.add(writer_.counters);
}

}  // namespace echolab
