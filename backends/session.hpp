// The seam between a protocol and the I/O model that serves it.
//
// A session is one connection's protocol: bytes, posts and deadlines come in, effects go out. It
// holds no descriptor, clock, thread or lock, so the same object runs on every backend and in a
// simulator with virtual time. The backend owns the whole connection loop, which is what lets
// blocking threads block, epoll check readiness and io_uring complete, each natively.
//
// Order of callbacks on one session: on_open once, first; on_close once, last; on_eof at most once,
// and no on_bytes after it; nothing but on_close after a close() or abort() effect. They never
// overlap, but the thread may differ from one to the next. A callback must not throw and must not
// block.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace echolab {

using Bytes = std::span<const std::byte>;
using Input = std::span<std::byte>;  // mutable: a WebSocket frame is unmasked in place
using Time = std::chrono::steady_clock::time_point;
using Duration = std::chrono::steady_clock::duration;
using Frame = std::shared_ptr<const std::vector<std::byte>>;  // encoded once, shared by N receivers

inline constexpr Time kNever = Time::max();

// Names one connection for as long as it lives. The slot is reused after the connection ends, the
// generation is not, so that an id that outlived its connection is recognised and dropped.
struct ConnId {
  std::uint32_t slot = 0;
  std::uint32_t generation = 0;
  std::uint16_t shard = 0;  // the loop that owns the connection

  friend bool operator==(const ConnId&, const ConnId&) = default;
};

// What one session, or any thread, tells another session. Data and not a closure, so that it can be
// logged and replayed.
struct Post {
  std::uint64_t topic = 0;
  Frame frame;
};

// A server that sessions may call: each request of the caller's is answered by a number of bytes
// that the caller knows (as an echo is).
struct Upstream {
  std::string host;  // numeric IPv4 or IPv6 address
  std::uint16_t port = 0;
};
using CallId = std::uint32_t;  // the session's own choice, unique among its unanswered calls
// What came of a call. The bytes die when the callback returns.
struct Reply {
  CallId id = 0;
  // None: all bytes are here. Else connection_refused, timed_out, connection_reset (also for an end
  // of file) and the like, and no bytes.
  std::error_code error;
  Bytes bytes;
};

// The effects of ONE callback, in order. The backend reads them when the callback has returned.
class Out {
 public:
  struct Piece {
    enum class Kind : std::uint8_t { copied, forwarded, shared };
    Kind kind;
    std::size_t offset;  // copied: where it starts in the arena
    Bytes bytes;         // forwarded and shared: where it lies
    Frame frame;         // shared: what keeps it alive
  };

  struct Call {
    CallId id;
    const Upstream* upstream;
    std::vector<std::byte> request;
    std::size_t reply_size;  // bytes
    Duration timeout;        // for connecting, sending and receiving together
  };

  // Copied before the call returns.
  void write(Bytes bytes) {
    if (bytes.empty()) return;
    total_ += bytes.size();
    if (pieces_.empty() || pieces_.back().kind != Piece::Kind::copied) {
      pieces_.push_back({Piece::Kind::copied, arena_.size(), {}, {}});
    }
    arena_.insert(arena_.end(), bytes.begin(), bytes.end());
  }
  // Not copied: a part of this callback's input travels back in the receive buffer itself.
  void forward(Bytes part_of_input) {
    if (part_of_input.empty()) return;
    total_ += part_of_input.size();
    pieces_.push_back({Piece::Kind::forwarded, 0, part_of_input, {}});
  }
  // Not copied: reference counted.
  void share(Frame frame) {
    if (!frame || frame->empty()) return;
    total_ += frame->size();
    const Bytes bytes(*frame);
    pieces_.push_back({Piece::Kind::shared, 0, bytes, std::move(frame)});
  }
  // Replaces the session's one deadline; kNever removes it. on_deadline comes at or after it.
  void wake_at(Time when) { wake_at_ = when; }
  // Asks an upstream; the answer comes as on_reply. Connections to upstreams are kept and used
  // again. The upstream must outlive the backend.
  void call(const Upstream& upstream, CallId id, Bytes request, std::size_t reply_size,
            Duration timeout) {
    calls_.push_back({id, &upstream, {request.begin(), request.end()}, reply_size, timeout});
  }
  // on_room comes, once, as soon as no more than Limits::low_water bytes are waiting to be sent; at
  // once, but not within this callback, if that is so already.
  void await_room() { await_room_ = true; }
  // After everything queued is sent.
  void close() { close_ = true; }
  // At once: what is queued is thrown away, the peer gets a reset. on_close says
  // connection_aborted.
  void abort() { abort_ = true; }
  // Bytes of earlier callbacks that the kernel had not taken when this one began.
  [[nodiscard]] std::size_t queued() const { return queued_; }

  // The rest is for backends. A copied piece's bytes are found only now, when the arena has stopped
  // growing.
  [[nodiscard]] std::size_t pieces() const { return pieces_.size(); }
  [[nodiscard]] const Piece& piece(std::size_t i) const { return pieces_[i]; }
  [[nodiscard]] Bytes bytes(std::size_t i) const {
    const Piece& p = pieces_[i];
    if (p.kind != Piece::Kind::copied) return p.bytes;
    std::size_t end = arena_.size();
    for (std::size_t j = i + 1; j < pieces_.size(); ++j) {
      if (pieces_[j].kind == Piece::Kind::copied) {
        end = pieces_[j].offset;
        break;
      }
    }
    return Bytes(arena_).subspan(p.offset, end - p.offset);
  }
  [[nodiscard]] std::size_t total() const { return total_; }  // bytes to send
  [[nodiscard]] bool closing() const { return close_ || abort_; }
  [[nodiscard]] bool aborting() const { return abort_; }
  [[nodiscard]] bool awaits_room() const { return await_room_; }
  [[nodiscard]] std::vector<Call>& calls() { return calls_; }
  void set_queued(std::size_t bytes) { queued_ = bytes; }
  [[nodiscard]] std::optional<Time> deadline() const { return wake_at_; }
  [[nodiscard]] bool empty() const {
    return pieces_.empty() && calls_.empty() && !wake_at_ && !await_room_ && !closing();
  }

  void clear() {
    pieces_.clear();
    arena_.clear();
    total_ = 0;
    calls_.clear();
    wake_at_.reset();
    await_room_ = close_ = abort_ = false;
  }

 private:
  std::vector<Piece> pieces_;
  std::vector<std::byte> arena_;
  std::size_t total_ = 0;
  std::size_t queued_ = 0;
  std::vector<Call> calls_;
  std::optional<Time> wake_at_;
  bool await_room_ = false;
  bool close_ = false;
  bool abort_ = false;
};

class Session {
 public:
  Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  virtual ~Session() = default;

  virtual void on_open(Out&, ConnId, Time) {}
  // Some bytes of the stream, never none, cut anywhere. They die when the call returns.
  virtual void on_bytes(Out&, Input, Time) = 0;
  // The peer has sent its last byte (half-close); it may still be reading.
  virtual void on_eof(Out& out, Time) { out.close(); }
  virtual void on_post(Out&, const Post&, Time) {}
  virtual void on_reply(Out&, const Reply&, Time) {}
  virtual void on_deadline(Out&, Time) {}
  virtual void on_room(Out&, Time) {}
  // The server is stopping; what is not closed when the grace period ends is cut off.
  virtual void on_drain(Out& out, Time) { out.close(); }
  // No error: closed as the session asked. Otherwise what ended it: connection_reset and the like
  // from the peer, no_buffer_space for an outbox over its limit, timed_out for a peer that did not
  // take what was queued before a close(), connection_aborted for an abort(), operation_canceled
  // for a hard stop.
  virtual void on_close(std::error_code) noexcept {}
};

class Service {
 public:
  Service() = default;
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;
  virtual ~Service() = default;

  // One session for a new connection. Called from any of the backend's threads.
  virtual std::unique_ptr<Session> accept() = 0;
  // Whether sessions are posted to. A plain service lets blocking threads block in recv; one that
  // pushes costs them a second thread a connection.
  [[nodiscard]] virtual bool pushes() const { return false; }
};

class Poster {
 public:
  Poster() = default;
  Poster(const Poster&) = delete;
  Poster& operator=(const Poster&) = delete;
  virtual ~Poster() = default;

  // Any thread, also from inside a callback. Per receiver, posts of one thread arrive in order.
  // Each loop is woken at most once a call. Ids whose connection has ended are dropped and counted.
  virtual void post(std::span<const ConnId>, const Post&) noexcept = 0;
};

}  // namespace echolab
