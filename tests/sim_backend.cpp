#include "tests/sim_backend.hpp"

#include <algorithm>
#include <bit>

#include "backends/sockets.hpp"

namespace echolab::test {
namespace {

// Bytes that one receive may bring; a real backend's receive buffer is about as large.
constexpr std::size_t kChunk = 64 * 1024;
// Bytes in flight from a peer to the server: a socket buffer's worth.
constexpr std::size_t kUpCapacity = 128 * 1024;

}  // namespace

void ByteQueue::push(Bytes bytes) {
  bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
}

std::vector<std::byte> ByteQueue::pop(std::size_t n) {
  n = std::min(n, size());
  const auto first = bytes_.begin() + static_cast<std::ptrdiff_t>(head_);
  std::vector<std::byte> out(first, first + static_cast<std::ptrdiff_t>(n));
  head_ += n;
  if (head_ > bytes_.size() / 2) {
    bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(head_));
    head_ = 0;
  }
  return out;
}

SimBackend::SimBackend(std::uint64_t seed, const Options& options)
    : random_(seed), limits_(options.limits), now_(std::chrono::hours(1)) {
}

Stats SimBackend::stats() const {
  Stats s;
  s.add(counters_);
  return s;
}

void SimBackend::note(std::uint64_t what) {
  trace_ = (trace_ ^ what) * 1099511628211ULL;
}

std::size_t SimBackend::some_of(std::size_t n) {
  const std::uint64_t bits = choose(std::bit_width(n));
  return 1 + std::min<std::size_t>(choose(2ULL << bits), n - 1);
}

void SimBackend::start(Service& service) {
  service_ = &service;
  started_ = true;
  if (stopping_) cut_off_ = now_ + grace_;
}

void SimBackend::run(Service& service) {
  start(service);
  while (!finished() && (step() || advance(kNever))) {
  }
}

void SimBackend::stop(Duration grace) noexcept {
  if (stopping_) return;
  stopping_ = true;
  grace_ = grace;
  cut_off_ = now_ + grace;
  for (const auto& link : backlog_) link->server_reset = true;
  backlog_.clear();
}

void SimBackend::post(std::span<const ConnId> ids, const Post& post) noexcept {
  for (const ConnId& id : ids) {
    if (Connection* c = find(id); c != nullptr && !c->closing) {
      c->inbox.push_back(post);
    } else {
      counters_.add(Count::posts_stale);
    }
  }
}

SimBackend::Connection* SimBackend::find(const ConnId& id) {
  for (const auto& c : connections_) {
    if (c->id == id) return c.get();
  }
  return nullptr;
}

std::shared_ptr<Link> SimBackend::connect(std::size_t down_capacity) {
  if (stopping_) return nullptr;
  auto link = std::make_shared<Link>();
  link->up_capacity = kUpCapacity;
  link->down_capacity = down_capacity;
  backlog_.push_back(link);
  return link;
}

void SimBackend::accept() {
  auto connection = std::make_unique<Connection>();
  Connection& c = *connection;
  if (free_slots_.empty()) {
    free_slots_.push_back(static_cast<std::uint32_t>(generations_.size()));
    generations_.push_back(0);
  }
  const std::uint32_t slot = free_slots_.back();
  free_slots_.pop_back();
  c.id = {slot, ++generations_[slot], 0};
  c.link = backlog_.front();
  backlog_.pop_front();
  c.session = service_->accept();
  connections_.push_back(std::move(connection));
  counters_.add(Count::accepted);
  note(slot);
  Out out;
  c.session->on_open(out, c.id, now_);
  apply(c, out);
}

void SimBackend::actions(const Connection& c, std::vector<Action>& can) const {
  can.clear();
  const Link& link = *c.link;
  if (link.peer_reset) can.push_back(Action::reset);
  if (!c.closing) {
    if (!c.paused && !c.eof_seen) {
      if (!link.up.empty()) can.push_back(Action::receive);
      if (link.up.empty() && link.up_fin) can.push_back(Action::eof);
    }
    if (c.deadline <= now_) can.push_back(Action::deadline);
    const auto due = [this](const Call& call) { return call.due <= now_; };
    if (std::any_of(c.calls.begin(), c.calls.end(), due)) can.push_back(Action::reply);
    if (c.awaits_room && c.outbox.size() <= limits_.low_water) can.push_back(Action::room);
    if (stopping_ && !c.drained) can.push_back(Action::drain);
  } else if (!link.up.empty() || (link.up_fin && !c.eof_seen)) {
    can.push_back(Action::discard);
  }
  if (!c.outbox.empty() && link.down.size() < link.down_capacity) can.push_back(Action::send);
  if (!c.inbox.empty()) can.push_back(Action::post);
  if (c.linger_until <= now_) can.push_back(Action::linger_over);
  if (c.flushed_by <= now_) can.push_back(Action::flush_over);
  if (stopping_ && cut_off_ <= now_) can.push_back(Action::cut_off);
}

bool SimBackend::step() {
  if (!started_) return false;
  if (!backlog_.empty() && !stopping_ && choose(2) == 0) {
    accept();
    return true;
  }
  std::vector<Action> can;
  const std::size_t n = connections_.size();
  for (std::size_t i = 0, first = n == 0 ? 0 : choose(n); i < n; ++i) {
    Connection& c = *connections_[(first + i) % n];
    actions(c, can);
    if (can.empty()) continue;
    act(c, can[choose(can.size())]);
    return true;
  }
  if (backlog_.empty() || stopping_) return false;
  accept();
  return true;
}

bool SimBackend::advance(Time limit) {
  Time next = limit;
  for (const auto& c : connections_) {
    if (!c->closing) next = std::min(next, c->deadline);
    next = std::min({next, c->linger_until, c->flushed_by});
    for (const Call& call : c->calls) next = std::min(next, call.due);
  }
  if (stopping_ && !connections_.empty()) next = std::min(next, cut_off_);
  if (next <= now_ || next == kNever) return false;
  now_ = next;
  return true;
}

void SimBackend::act(Connection& c, Action action) {
  note(static_cast<std::uint64_t>(action) << 32 | c.id.slot);
  Out out;
  out.set_queued(c.outbox.size());
  switch (action) {
    case Action::reset:
      return finish(c, std::make_error_code(std::errc::connection_reset));
    case Action::receive:
      return receive(c);
    case Action::eof:
      c.eof_seen = true;
      c.session->on_eof(out, now_);
      return apply(c, out);
    case Action::discard:
      c.link->up.pop(some_of(kChunk));
      c.eof_seen = c.link->up.empty() && c.link->up_fin;
      return settle(c);
    case Action::send:
      send(c);
      return settle(c);
    case Action::post: {
      const Post post = std::move(c.inbox.front());
      c.inbox.pop_front();
      if (c.closing) return counters_.add(Count::posts_stale);
      counters_.add(Count::posts);
      c.session->on_post(out, post, now_);
      return apply(c, out);
    }
    case Action::deadline:
      c.deadline = kNever;
      counters_.add(Count::deadlines);
      c.session->on_deadline(out, now_);
      return apply(c, out);
    case Action::reply:
      return reply(c);
    case Action::room:
      c.awaits_room = false;
      c.session->on_room(out, now_);
      return apply(c, out);
    case Action::drain:
      c.drained = true;
      c.session->on_drain(out, now_);
      return apply(c, out);
    case Action::linger_over:
      return finish(c, {});
    case Action::flush_over:
      c.link->server_reset = true;
      return finish(c, std::make_error_code(std::errc::timed_out));
    case Action::cut_off: {
      // What only lingers has been closed as its session asked.
      const bool done = c.linger_until != kNever;
      if (!done) c.link->server_reset = true;
      return finish(c,
                    done ? std::error_code{} : std::make_error_code(std::errc::operation_canceled));
    }
  }
}

void SimBackend::receive(Connection& c) {
  // A buffer of its own, exactly as long, so that a session that keeps its input is found out.
  std::vector<std::byte> input = c.link->up.pop(some_of(kChunk));
  note(input.size());
  counters_.add(Count::inputs);
  counters_.add(Count::bytes_in, input.size());
  Out out;
  out.set_queued(c.outbox.size());
  c.session->on_bytes(out, input, now_);
  apply(c, out);
}

void SimBackend::apply(Connection& c, Out& out) {
  if (out.aborting()) {
    c.link->server_reset = true;
    return finish(c, std::make_error_code(std::errc::connection_aborted));
  }
  for (std::size_t i = 0; i < out.pieces(); ++i) c.outbox.push(out.bytes(i));
  counters_.add(Count::bytes_copied, out.total());
  if (out.deadline()) c.deadline = *out.deadline();
  if (out.closing()) {
    c.closing = true;
    c.flushed_by = now_ + limits_.flush;
    drop_calls(c);
  }
  if (out.awaits_room()) c.awaits_room = true;
  if (c.outbox.size() > limits_.outbox_limit) {
    counters_.add(Count::overflows);
    c.link->server_reset = true;
    return finish(c, std::make_error_code(std::errc::no_buffer_space));
  }
  if (!c.paused && c.outbox.size() >= limits_.high_water) {
    c.paused = true;
    counters_.add(Count::pauses);
  }
  if (!c.closing) {
    for (const Out::Call& asked : out.calls()) call(c, asked);
  }
  settle(c);
}

void SimBackend::call(Connection& c, const Out::Call& asked) {
  Call call{asked.id, asked.upstream->port, now_, {}, {}, false, false, false};
  const auto at = upstreams_.find(call.port);
  const auto connect = [&] {
    at->second.server->connected();
    call.connected = true;
    call.reused = false;
    return at->second.server->answer(asked, true);
  };
  if (!parse_address(asked.upstream->host, call.port)) {
    call.error = std::make_error_code(std::errc::invalid_argument);
  } else if (at == upstreams_.end()) {
    call.error = std::make_error_code(std::errc::connection_refused);
  } else {
    SimReply reply;
    if (at->second.idle > 0) {
      --at->second.idle;
      call.connected = call.reused = true;
      reply = at->second.server->answer(asked, false);
      if (reply.error && !reply.begun) {
        at->second.server->disconnected();
        reply = connect();
      }
    } else {
      reply = connect();
    }
    call.error = reply.error;
    if (reply.after > asked.timeout || (!reply.error && reply.bytes.size() < asked.reply_size)) {
      call.error = std::make_error_code(std::errc::timed_out);
      reply.after = asked.timeout;
    }
    call.keep = !call.error && reply.bytes.size() == asked.reply_size;
    if (!call.error) {
      call.bytes = std::move(reply.bytes);
      call.bytes.resize(asked.reply_size);
    }
    call.due = reply.after > kNever - now_ ? kNever : now_ + reply.after;
  }
  c.calls.push_back(std::move(call));
}

void SimBackend::reply(Connection& c) {
  const auto due = [this](const Call& call) { return call.due <= now_; };
  const auto n = static_cast<std::uint64_t>(std::count_if(c.calls.begin(), c.calls.end(), due));
  auto at = std::find_if(c.calls.begin(), c.calls.end(), due);
  for (std::uint64_t skip = choose(n); skip > 0; --skip)
    at = std::find_if(at + 1, c.calls.end(), due);
  const Call call = std::move(*at);
  c.calls.erase(at);
  note(call.id);
  counters_.add(Count::calls);
  if (call.error) counters_.add(Count::calls_failed);
  if (call.reused) counters_.add(Count::calls_reused);
  if (call.keep) {
    ++upstreams_[call.port].idle;
  } else if (call.connected) {
    upstreams_[call.port].server->disconnected();
  }
  Out out;
  out.set_queued(c.outbox.size());
  c.session->on_reply(out, {call.id, call.error, call.bytes}, now_);
  apply(c, out);
}

void SimBackend::drop_calls(Connection& c) {
  for (const Call& call : c.calls) {
    if (call.connected) upstreams_[call.port].server->disconnected();
  }
  c.calls.clear();
}

void SimBackend::listen(std::uint16_t port, SimServer& server) {
  upstreams_[port].server = &server;
}

void SimBackend::hang_up(std::uint16_t port) {
  Listening& upstream = upstreams_[port];
  for (; upstream.idle > 0; --upstream.idle) upstream.server->disconnected();
}

void SimBackend::send(Connection& c) {
  Link& link = *c.link;
  const std::size_t room = link.down_capacity - link.down.size();
  const auto bytes = c.outbox.pop(some_of(std::min(room, c.outbox.size())));
  note(bytes.size());
  counters_.add(Count::bytes_out, bytes.size());
  if (link.peer_gone) {
    link.peer_reset = true;
  } else {
    link.down.push(bytes);
  }
  if (c.outbox.size() <= limits_.low_water) c.paused = false;
  if (c.closing) c.flushed_by = now_ + limits_.flush;
}

void SimBackend::settle(Connection& c) {
  if (!c.closing || !c.outbox.empty()) return;
  c.link->down_fin = true;
  c.flushed_by = kNever;
  if (c.eof_seen) return finish(c, {});
  if (c.linger_until == kNever) c.linger_until = now_ + limits_.linger;
}

void SimBackend::finish(Connection& c, std::error_code error) {
  drop_calls(c);
  counters_.add(Count::posts_stale, c.inbox.size());
  counters_.add(Count::closed);
  c.link->down_fin = true;
  c.link->server_gone = true;
  if (!c.link->up.empty()) c.link->server_reset = true;  // closed with unread input, tcp(7)
  const ConnId id = c.id;
  // Gone before on_close is called, so that what it posts to itself is stale.
  const auto at = std::find_if(connections_.begin(), connections_.end(),
                               [&](const auto& other) { return other.get() == &c; });
  const std::unique_ptr<Connection> last = std::move(*at);
  connections_.erase(at);
  last->session->on_close(error);
  last->session.reset();
  free_slots_.push_back(id.slot);
  if (finished()) {
    for (const auto& [port, upstream] : upstreams_) hang_up(port);
  }
}

}  // namespace echolab::test
