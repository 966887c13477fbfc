// A backend without a kernel: connections are queues of bytes in memory, time is a number, and a
// seeded random choice takes the place of every race. The same seed gives the same run.
//
// It is the executable form of the contract in backends/session.hpp: what a test may expect of
// every backend is what it expects here. It is single-threaded: the test calls step() and advance()
// where a real world would run on its own. Work takes no time, only waiting does, so deadlines are
// exact.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backends/backend.hpp"

namespace echolab::test {

// First in, first out.
class ByteQueue {
 public:
  void push(Bytes);
  std::vector<std::byte> pop(std::size_t n);
  void clear() { bytes_.clear(), head_ = 0; }
  [[nodiscard]] std::size_t size() const { return bytes_.size() - head_; }
  [[nodiscard]] bool empty() const { return size() == 0; }

 private:
  std::vector<std::byte> bytes_;
  std::size_t head_ = 0;
};

// One connection as the network sees it. The peer (client) side is driven by the test.
struct Link {
  ByteQueue up, down;  // to the server, to the peer: in flight or in a socket buffer
  std::size_t up_capacity = 0;
  std::size_t down_capacity = 0;
  bool up_fin = false;        // the peer has sent its FIN
  bool down_fin = false;      // the server has sent its FIN
  bool peer_gone = false;     // the peer has closed: what is sent to it is answered by RST
  bool peer_reset = false;    // an RST from the peer has arrived
  bool server_gone = false;   // the server has closed: what is sent to it is answered by RST
  bool server_reset = false;  // an RST from the server has arrived
};

// What comes of one call, decided when it is made. It takes no time but `after`; what comes later
// than the call's timeout, or is too short, is a timeout.
struct SimReply {
  Duration after{};
  std::error_code error;
  std::vector<std::byte> bytes;
  bool begun = false;  // some bytes came before the error: the call is not made again
};
// An upstream.
class SimServer {
 public:
  virtual void connected() = 0;
  virtual void disconnected() = 0;
  // `fresh`: the first call on its connection.
  virtual SimReply answer(const Out::Call&, bool fresh) = 0;

 protected:
  ~SimServer() = default;
};

class SimBackend final : public Backend {
 public:
  SimBackend(std::uint64_t seed, const Options&);

  // What every backend has. The port is not a real one.
  [[nodiscard]] std::uint16_t port() const noexcept override { return 1; }
  void run(Service&) override;
  void stop(Duration grace) noexcept override;
  void post(std::span<const ConnId>, const Post&) noexcept override;
  [[nodiscard]] Stats stats() const override;

  // What run() does, in single steps.
  void start(Service&);
  // Does one of the things that can happen now, if there is one.
  bool step();
  // Moves the clock to the next deadline, but not beyond `limit`. False: it is at `limit` already.
  bool advance(Time limit);
  [[nodiscard]] bool finished() const { return started_ && stopping_ && connections_.empty(); }
  [[nodiscard]] Time now() const { return now_; }
  // Everything that has happened, as one number: equal for equal seeds.
  [[nodiscard]] std::uint64_t trace() const { return trace_; }
  // Uniform in [0, n), from the same random source.
  std::uint64_t choose(std::uint64_t n) { return random_() % n; }

  // A peer connects. Empty: refused.
  std::shared_ptr<Link> connect(std::size_t down_capacity);

  // Calls to this port, at any address, are answered by the server, which outlives this backend's
  // run. To other ports they are refused.
  void listen(std::uint16_t port, SimServer&);
  // The server at this port closes the connections that no call is using.
  void hang_up(std::uint16_t port);

 private:
  enum class Action : std::uint8_t {
    reset,
    receive,
    eof,
    discard,
    send,
    post,
    deadline,
    reply,
    room,
    drain,
    linger_over,
    flush_over,
    cut_off
  };
  struct Call {
    CallId id = 0;
    std::uint16_t port = 0;
    Time due{};
    std::error_code error;
    std::vector<std::byte> bytes;
    bool connected = false;
    bool reused = false;
    bool keep = false;  // the connection can be used again
  };
  struct Listening {
    SimServer* server = nullptr;
    std::size_t idle = 0;  // connections
  };
  struct Connection {
    ConnId id;
    std::shared_ptr<Link> link;
    std::unique_ptr<Session> session;
    ByteQueue outbox;
    std::deque<Post> inbox;
    std::vector<Call> calls;  // unanswered
    Time deadline = kNever;
    Time linger_until = kNever;
    Time flushed_by = kNever;  // if closing and not all is sent
    bool eof_seen = false;
    bool closing = false;  // the session asked for it
    bool paused = false;
    bool awaits_room = false;
    bool drained = false;
  };

  void accept();
  void actions(const Connection&, std::vector<Action>&) const;
  void act(Connection&, Action);
  void receive(Connection&);
  void apply(Connection&, Out&);
  void call(Connection&, const Out::Call&);
  void reply(Connection&);
  void drop_calls(Connection&);
  void send(Connection&);
  void settle(Connection&);
  void finish(Connection&, std::error_code);
  Connection* find(const ConnId&);
  std::size_t some_of(std::size_t n);  // 1..n, small and large ones equally likely
  void note(std::uint64_t what);

  std::mt19937_64 random_;
  Limits limits_;
  Service* service_ = nullptr;
  Counters counters_;
  Time now_{};
  Time cut_off_ = kNever;
  Duration grace_{};
  bool started_ = false;
  bool stopping_ = false;
  std::deque<std::shared_ptr<Link>> backlog_;
  std::map<std::uint16_t, Listening> upstreams_;  // by port
  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<std::uint32_t> free_slots_;
  std::vector<std::uint32_t> generations_;  // by slot
  std::uint64_t trace_ = 14695981039346656037ULL;
};

}  // namespace echolab::test
