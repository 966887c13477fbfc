// The load generator's slices. One loop: issue what may be issued, wait, take what arrived.
//
// Per batch of replies that one connection delivers: one recv, one send, two clock reads. Edge-
// triggered epoll, registered once: no epoll_ctl a request. A recv that returns less than the
// buffer holds has drained the socket (epoll(7), questions and answers), so nothing is read just to
// see EAGAIN. Sends never wait: what does not fit is written again when an edge of EPOLLOUT comes,
// and meanwhile replies are read, so the two sides cannot block each other.
#include "harness/load.hpp"

#include <fmt/core.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <ctime>
#include <system_error>

#include "harness/load_impl.hpp"
#include "harness/units.hpp"

namespace echolab::harness {
namespace {

using Kind = LoadError::Kind;

// Connections started before replies are looked at again.
constexpr int kRampStep = 64;
constexpr std::uint64_t kProgressPeriod = 250'000'000;  // ns
constexpr Nanos kPatience = std::chrono::seconds(10);
constexpr std::uint64_t kNanosPerSecond = 1'000'000'000;

std::atomic<bool> interrupt_asked{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler sets it");

std::uint64_t thread_cpu_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * kNanosPerSecond +
         static_cast<std::uint64_t>(t.tv_nsec);
}

const Shape& checked(const Shape& shape) {
  const auto in_range = [](const char* what, double value, double least, double most) {
    if (value >= least && value <= most) return;
    throw UsageError(fmt::format("{} must be {:.0f} to {:.0f}", what, least, most));
  };
  in_range("connections", shape.connections, 1, kMaxConnections);
  in_range("size in bytes", static_cast<double>(shape.size), 1, static_cast<double>(kMaxSize));
  in_range("depth", shape.depth, 1, kMaxDepth);
  in_range("rate in requests/s", shape.rate, 0, kMaxRate);
  return shape;
}

}  // namespace

Load::Impl::Impl(Endpoint e, const Shape& s, std::uint64_t seed)
    : endpoint(std::move(e)),
      shape(checked(s)),
      pattern(seed),
      schedule(shape, seed),
      patience(static_cast<std::uint64_t>(kPatience.count())) {
}

Slice Load::Impl::run(Nanos duration, Histogram& to_latency, Histogram* to_raw) {
  latency = &to_latency;
  raw = to_raw;
  begin(duration);
  try {
    loop();
  } catch (...) {
    finish();
    throw;
  }
  finish();
  return slice;
}

void Load::Impl::begin(Nanos duration) {
  slice = {};
  issuing = false;
  inflight = queued = inflight_area = 0;
  // What came since the last slice can only be an error; found now, it is not taken for a reply.
  int n = 0;
  do {
    n = sleep(0);
    for (int i = 0; i < n; ++i) handle(events[static_cast<std::size_t>(i)]);
    send_answered();
  } while (n == kEvents);

  // Sleeps end when they should and not up to 50 us later, the default slack. It is set back in
  // finish(): servers that are started later would inherit it.
  if (open_loop()) ::prctl(PR_SET_TIMERSLACK, 1UL);
  ramp_left = connections.size();
  cpu_started = thread_cpu_ns();
  started = now = last_reply = silent_since = now_ns();
  end = started + static_cast<std::uint64_t>(duration.count());
  next_progress = started + kProgressPeriod;
  schedule.start(started);
  issuing = true;
}

void Load::Impl::loop() {
  for (;;) {
    if (issuing) {
      if (interrupted()) end = std::min(end, now);
      if (open_loop()) {
        issue_due();
      } else {
        ramp();
      }
      if (now >= end) stop_issuing();
    }
    if (!issuing && inflight + queued == 0) return;
    check_silence();
    if (progress && now >= next_progress) {
      next_progress = now + kProgressPeriod;
      progress(Nanos(now - started), slice.requests);
    }
    const int n = wait();
    if (n == 0 || open_loop()) at(now_ns());
    for (int i = 0; i < n; ++i) {
      handle(events[static_cast<std::size_t>(i)]);
      // A long batch must not make requests late that fall due in it.
      if (open_loop() && issuing) issue_due();
    }
    send_answered();
  }
}

void Load::Impl::finish() {
  if (open_loop()) ::prctl(PR_SET_TIMERSLACK, 0UL);  // the default
  const std::uint64_t last = open_loop() ? std::max(end, last_reply) : last_reply;
  slice.elapsed = Nanos(last - started);
  slice.client_cpu = Nanos(thread_cpu_ns() - cpu_started);
  if (last > started) {
    slice.inflight_mean = static_cast<double>(inflight_area) / static_cast<double>(last - started);
  }
}

// Closed loop: starts the next connections, in an order that goes on from slice to slice. The clock
// is looked at here too: with many connections the start alone may outlast a slice.
void Load::Impl::ramp() {
  for (int i = 0; i < kRampStep && ramp_left > 0 && now < end; ++i, --ramp_left) {
    Connection& c = connections[ramp_next];
    ramp_next = (ramp_next + 1) % connections.size();
    allow(c, c.rx + shape.depth - c.goal);
    send(c);
  }
}

void Load::Impl::issue_due() {
  const std::uint64_t until = std::min(now + 1, end);
  for (std::uint64_t due = schedule.due(); due < until; due = schedule.due()) {
    Connection& c = connections[schedule.connection()];
    schedule.step();
    ++slice.due;
    if (c.goal - c.rx >= shape.depth) {
      ++slice.skipped;
      continue;
    }
    allow(c, 1);
    c.times[c.goal - 1].due = due;
    if (!c.has_due) due_now.push_back(&c);
    c.has_due = true;
  }
  // All that is due on a connection goes out in one send.
  for (Connection* c : due_now) {
    c->has_due = false;
    send(*c);
  }
  due_now.clear();
}

void Load::Impl::stop_issuing() {
  issuing = false;
  if (open_loop()) {
    schedule.stop(end);  // what is due and not sent yet still goes out: it is late, and counts so
    return;
  }
  for (Connection& c : connections) {
    const std::uint64_t dropped = c.goal - c.begun();
    c.goal -= dropped;
    queued -= dropped;
  }
}

void Load::Impl::allow(Connection& c, std::uint64_t requests) {
  if (inflight + queued == 0) silent_since = now;
  for (; requests > 0; --requests) {
    c.times.admit(c.goal++, c.rx);
    ++queued;
  }
}

// Waits for events until there is something else to do. Never spins: the server may need our CPU.
int Load::Impl::wait() {
  const auto nap = std::min(patience, static_cast<std::uint64_t>(kNap.count()));
  if (!issuing) return sleep(nap);
  if (!open_loop()) return sleep(ramp_left > 0 ? 0 : nap);
  at(now_ns());
  const std::uint64_t until = std::min({schedule.due(), end, now + nap});
  return sleep(until > now ? until - now : 0);
}

int Load::Impl::sleep(std::uint64_t ns) {
  int n = -1;
  if (open_loop() && ns > 0 && !millisecond_sleeps) {
    const timespec t{static_cast<time_t>(ns / kNanosPerSecond),
                     static_cast<long>(ns % kNanosPerSecond)};
    n = ::epoll_pwait2(epoll.get(), events.data(), kEvents, &t, nullptr);
    // Before Linux 5.11, or forbidden by a container's filter: sleep in milliseconds from now on.
    if (n < 0 && (errno == ENOSYS || errno == EPERM)) millisecond_sleeps = true;
  }
  if (n < 0 && (!open_loop() || ns == 0 || millisecond_sleeps)) {
    const auto ms = static_cast<int>((ns + 999'999) / 1'000'000);  // up: down would spin
    n = ::epoll_wait(epoll.get(), events.data(), kEvents, ms);
  }
  if (n < 0 && errno != EINTR)
    throw std::system_error(errno, std::generic_category(), "epoll_wait");
  return std::max(n, 0);
}

void Load::Impl::handle(const epoll_event& event) {
  Connection& c = connections[event.data.u32];
  constexpr std::uint32_t kEnded = EPOLLRDHUP | EPOLLHUP | EPOLLERR;
  if ((event.events & (EPOLLIN | kEnded)) != 0) receive(c, (event.events & kEnded) != 0);
  if ((event.events & EPOLLOUT) != 0) c.blocked = false;
  if (issuing && !open_loop() && now < end) allow(c, c.rx + shape.depth - c.goal);
  answered.push_back(&c);
}

// All of a batch is received before anything of it is sent: the kernel's two paths then alternate
// once a batch and not once a request, which its instruction cache repays with 1 to 4 % of our CPU.
void Load::Impl::send_answered() {
  for (Connection* c : answered) send(*c);
  answered.clear();
}

// Takes all that has arrived; `to_the_end`: up to the end of file or the error that is there too.
void Load::Impl::receive(Connection& c, bool to_the_end) {
  std::size_t n = 0;
  do {
    n = receive_some(c);
    if (n == 0) return;
    at(now_ns());
    silent_since = now;
    take(c, n);
  } while (n == kBuffer || to_the_end);
}

void Load::Impl::take(Connection& c, std::size_t bytes) {
  const std::byte* from = in.get();
  while (bytes > 0) {
    const std::size_t known = c.rx == c.tx ? c.tx_offset : shape.size;
    const std::size_t part = std::min(bytes, known - c.rx_offset);
    if (part == 0) {
      throw extra(c, bytes, fmt::format("after the reply to request {}", c.rx));
    }
    const std::uint64_t k = key(c, c.rx);
    const std::size_t good = pattern.check(from, k, c.rx_offset, part);
    if (good != part) {
      throw mismatch(c, fmt::format("request {}", c.rx + 1), k, c.rx_offset + good, from[good],
                     shape.size);
    }
    from += part;
    bytes -= part;
    c.rx_offset += part;
    if (c.rx_offset < shape.size) continue;
    const Times t = c.times[c.rx];
    latency->record(now - t.due);
    if (raw != nullptr) raw->record(now - t.sent);
    c.rx_offset = 0;
    ++c.rx;
    --inflight;
    ++slice.requests;
    last_reply = now;
  }
}

// Everything that is allowed, in as few sends as possible.
void Load::Impl::send(Connection& c) {
  while (c.tx < c.goal && !c.blocked) {
    std::size_t length = 0;
    std::uint64_t request = c.tx;
    std::size_t offset = c.tx_offset;
    while (request < c.goal && length < kBuffer) {
      const std::size_t part = std::min(shape.size - offset, kBuffer - length);
      pattern.write(out.get() + length, key(c, request), offset, part);
      length += part;
      offset += part;
      if (offset < shape.size) continue;
      offset = 0;
      ++request;
    }
    at(now_ns());
    const std::size_t sent = send_some(c, length);
    c.blocked = sent < length;
    advance(c, sent);
  }
}

// `bytes` more have been sent.
void Load::Impl::advance(Connection& c, std::size_t bytes) {
  const std::uint64_t first = c.begun();
  const std::size_t place = c.tx_offset + bytes;
  c.tx += place / shape.size;
  c.tx_offset = place % shape.size;
  const std::uint64_t last = c.begun();
  for (std::uint64_t request = first; request < last; ++request) {
    Times& t = c.times[request];
    t.sent = now;
    if (!open_loop()) t.due = now;
  }
  inflight += last - first;
  queued -= last - first;
}

// The time is `time`: what was in flight until now is accounted for.
void Load::Impl::at(std::uint64_t time) {
  inflight_area += inflight * (time - now);
  now = time;
}

void Load::Impl::check_silence() {
  if (inflight + queued == 0 || now - silent_since <= patience) return;
  for (const Connection& c : connections) {
    if (c.rx == c.goal) continue;
    throw LoadError(
        Kind::timeout,
        fmt::format("{}: no byte from the server for {} with {} requests unanswered; {}", name(c),
                    format_duration(Nanos(now - silent_since)), inflight + queued, state(c)));
  }
}

std::size_t Load::Impl::receive_some(Connection& c) {
  for (;;) {
    const ssize_t n = ::recv(c.fd.get(), in.get(), kBuffer, 0);
    if (n > 0) return static_cast<std::size_t>(n);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return 0;
    const std::string how =
        n == 0 ? "closed by the server" : std::generic_category().message(errno);
    throw LoadError(Kind::closed, fmt::format("{}: {}; {}", name(c), how, state(c)));
  }
}

// Sends from the start of `out`; 0 if the socket takes nothing now, or is broken: that the reading
// side learns, after the replies that are still in it.
std::size_t Load::Impl::send_some(Connection& c, std::size_t bytes) {
  for (;;) {
    const ssize_t n = ::send(c.fd.get(), out.get(), bytes, MSG_NOSIGNAL);
    if (n >= 0) return static_cast<std::size_t>(n);
    if (errno != EINTR) return 0;
  }
}

std::string Load::Impl::name(const Connection& c) const {
  return fmt::format("{}, connection {}", endpoint.text, &c - connections.data() + 1);
}

std::string Load::Impl::state(const Connection& c) const {
  if (setup_state) return setup_state(c);
  if (c.goal == 0) return "no request had been sent on it yet";
  if (c.rx == c.begun()) return "no request was unanswered on it";
  return fmt::format("request {}: {} of {} bytes of the reply received", c.rx + 1, c.rx_offset,
                     shape.size);
}

LoadError Load::Impl::mismatch(const Connection& c, const std::string& what, std::uint64_t k,
                               std::size_t offset, std::byte got, std::size_t size) const {
  return {Kind::mismatch,
          fmt::format("{}, {}: wrong byte at offset {} of {}: expected 0x{:02x}, got 0x{:02x}",
                      name(c), what, offset, size, std::to_integer<unsigned>(pattern.at(k, offset)),
                      std::to_integer<unsigned>(got))};
}

LoadError Load::Impl::extra(const Connection& c, std::size_t bytes, const std::string& when) const {
  return {Kind::extra, fmt::format("{}: {} {} that nobody asked for, {}", name(c), bytes,
                                   bytes == 1 ? "byte" : "bytes", when)};
}

Load::Load(Endpoint endpoint, Shape shape, std::uint64_t seed)
    : impl_(std::make_unique<Impl>(std::move(endpoint), shape, seed)) {
}
Load::~Load() = default;

void Load::connect(Nanos timeout, unsigned up_to) {
  impl_->connect(timeout, up_to);
}
void Load::verify(unsigned at_most) {
  impl_->verify(at_most);
}
Slice Load::run(Nanos duration, Histogram& latency, Histogram* raw) {
  return impl_->run(duration, latency, raw);
}
std::size_t Load::used() const {
  const auto used = [](const Connection& c) { return c.begun() > 0; };
  return static_cast<std::size_t>(
      std::count_if(impl_->connections.begin(), impl_->connections.end(), used));
}

const Slice& Load::partial() const {
  return impl_->slice;
}
void Load::set_patience(Nanos patience) {
  impl_->patience = static_cast<std::uint64_t>(std::max(patience, Nanos(1)).count());
}
void Load::set_progress(std::function<void(Nanos, std::uint64_t)> progress) {
  impl_->progress = std::move(progress);
}

void Load::interrupt() noexcept {
  interrupt_asked.store(true, std::memory_order_relaxed);
}
void Load::clear_interrupt() noexcept {
  interrupt_asked.store(false, std::memory_order_relaxed);
}
bool Load::interrupted() noexcept {
  return interrupt_asked.load(std::memory_order_relaxed);
}

}  // namespace echolab::harness
