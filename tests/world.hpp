// A backend under test together with the clients that talk to it, so that one test body runs over
// TCP against every real backend and in virtual time against the simulated one.
//
// A test body runs in one thread. Over TCP the backend runs in threads of its own; in the simulator
// it moves only while the body waits for something.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backends/backend.hpp"
#include "tests/catch.hpp"
#include "tests/contract.hpp"

namespace echolab::test {

using namespace std::chrono_literals;

// How long anything may take before a test fails. Far above what a loaded machine under a
// sanitizer needs: no test depends on speed.
inline constexpr Duration kPatience = 60s;
// Long enough for something wrong to show, where a test waits for nothing to happen.
inline constexpr Duration kMoment = 100ms;

using Blob = std::vector<std::byte>;
Blob pattern(std::uint64_t seed, std::size_t size,
             std::size_t from = 0);  // bytes from, from+1, ...
Frame frame_of(Blob);
Blob blob_of(std::string_view);
// Empty if equal, else the first difference in one line.
std::string difference(Bytes expected, Bytes got);
// Counts that are smaller under a sanitizer, where everything is ten times slower.
std::size_t scaled(std::size_t full, std::size_t sanitized);
std::uint64_t seed();  // ECHOLAB_SEED, or 1

// The client's end of one connection.
class Peer {
 public:
  enum class State : std::uint8_t { open, eof, reset };
  Peer() = default;
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;
  virtual ~Peer() = default;

  // These return at once: how much was taken (0 also when the connection is broken), what was
  // there.
  virtual std::size_t send_some(Bytes) = 0;
  virtual Blob read_some(std::size_t most) = 0;
  // Until there is something to read (also an end) or room to write. False: not in that time.
  virtual bool wait(bool to_read, bool to_write, Duration at_most) = 0;
  virtual void half_close() = 0;
  virtual void reset() = 0;  // RST
  virtual void close() = 0;
  [[nodiscard]] State state() const { return state_; }  // as far as reads and writes have seen

  // The rest waits, for kPatience at most, and throws std::runtime_error with what went wrong.
  void send(Bytes);
  Blob read(std::size_t n);  // exactly n bytes
  Blob read_all();           // until EOF
  // Sends and reads at the same time, which no stream protocol can do without when it is large.
  Blob exchange(Bytes request, std::size_t reply_size);
  // Sends, closes its half, reads until EOF.
  Blob exchange_all(Bytes request);
  State read_end();  // discards until EOF or reset, and says which
  // Sends until the other side has taken nothing for a moment; at most all. Returns how much.
  std::size_t send_until_stuck(Bytes);

 protected:
  State state_ = State::open;
};

using Peers = std::vector<std::unique_ptr<Peer>>;
// exchange() on all of them at the same time: peer i sends requests[i] and reads as much.
std::vector<Blob> exchange_on_all(Peers&, const std::vector<Blob>& requests);

struct PeerOptions {
  int receive_buffer = 0;  // bytes; 0: as the system does it
};

// A server that the sessions of a test call. It sends back what it gets, until it is told
// otherwise. A request is what arrives at once, so it should be small where that matters.
class TestUpstream {
 public:
  enum class Habit : std::uint8_t {
    echo,
    silent,   // takes everything and answers nothing
    half,     // sends half of the answer and closes
    hang_up,  // closes when a request arrives
    once,     // answers the first request of a connection and closes when a second arrives
    chatty,   // sends a byte more than it got
  };
  enum class Listens : std::uint8_t {
    yes,
    no,    // connections are refused
    full,  // connections are neither accepted nor refused
  };
  TestUpstream() = default;
  TestUpstream(const TestUpstream&) = delete;
  TestUpstream& operator=(const TestUpstream&) = delete;
  virtual ~TestUpstream() = default;

  [[nodiscard]] const Upstream& address() const { return address_; }
  // From now on. Each answer is sent this long after its request.
  virtual void behave(Habit, Duration delay = {}) = 0;
  virtual void close_all() = 0;                            // its connections
  [[nodiscard]] virtual std::size_t accepted() const = 0;  // connections that ever were
  [[nodiscard]] virtual std::size_t open() const = 0;      // connections that are

 protected:
  Upstream address_;
};

struct WorldOptions {
  WorldOptions() { limits.linger = 50ms; }
  Limits limits;
  std::string host;  // empty: a loopback address that only this process uses
};

// One entry of the list that the suite runs over.
struct Target {
  const char* name;
  const char* spec;  // "sim", or what make_backend takes
  unsigned loops;
  [[nodiscard]] bool simulated() const { return std::string_view(spec) == "sim"; }
  // Whether a session's calls keep its other callbacks waiting.
  [[nodiscard]] bool blocking() const { return std::string_view(spec).starts_with("threads"); }
  // libuv stops polling a stream that has reached its end, and nothing else tells of its reset.
  [[nodiscard]] bool tells_reset_after_fin() const {
    return !std::string_view(spec).starts_with("libuv");
  }
  // Connections that are served at the same time.
  [[nodiscard]] std::size_t capacity() const {
    return std::string_view(spec).starts_with("threads:pool") ? 60 : 100'000;
  }
};
inline constexpr Target kTargets[] = {
    {"sim", "sim", 1},
    {"threads", "threads", 1},
    {"threads:pool", "threads:pool=64", 1},
    {"epoll", "epoll", 1},
    {"epoll x2", "epoll", 2},
    {"epoll:lt", "epoll:lt", 1},
    {"io_uring", "io_uring", 1},
    {"io_uring x2", "io_uring", 2},
    {"io_uring:plain", "io_uring:plain", 1},
    {"io_uring:multishot", "io_uring:multishot", 1},
    {"io_uring:sqpoll", "io_uring:sqpoll", 1},
    {"libuv", "libuv", 1},
    {"libuv x2", "libuv", 2},
    {"libuv:inline", "libuv:inline", 1},
    {"libuv:inline x2", "libuv:inline", 2},
    {"libuv:preempt", "libuv:preempt", 1},
};

class World {
 public:
  World() = default;
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  virtual ~World() = default;

  // Called once. The service belongs to the world and is destroyed after run() has returned.
  virtual void start(std::unique_ptr<Service>) = 0;
  // Connected, though perhaps not yet accepted. Null: refused.
  virtual std::unique_ptr<Peer> try_connect(PeerOptions = {}) = 0;
  virtual Backend& backend() = 0;
  virtual Time now() = 0;
  virtual void pass(Duration) = 0;
  // Waits until it is so. False: not within kPatience.
  virtual bool eventually(const std::function<bool()>&) = 0;
  // Each actor is called until it returns false: over TCP each in a thread of its own, in the
  // simulator in a random order with the backend's steps between.
  virtual void race(std::vector<std::function<bool()>> actors) = 0;
  virtual bool run_returned() = 0;

  // Lives as long as the world.
  TestUpstream& upstream(TestUpstream::Listens listens = TestUpstream::Listens::yes) {
    upstreams_.push_back(make_upstream(listens));
    return *upstreams_.back();
  }

  std::unique_ptr<Peer> connect(PeerOptions = {});  // throws when refused
  Peers connect_many(std::size_t n);
  // Ends the run if it is not ended, and checks what must hold for every run.
  void finish();
  Watch watch;

 protected:
  virtual void join() = 0;  // until run() has returned; rethrows what it threw
  virtual std::unique_ptr<TestUpstream> make_upstream(TestUpstream::Listens) = 0;

 private:
  std::vector<std::unique_ptr<TestUpstream>> upstreams_;
};
std::unique_ptr<World> make_world(const Target&, const WorldOptions& = {});
std::unique_ptr<TestUpstream> make_tcp_upstream(TestUpstream::Listens);
std::unique_ptr<World> make_sim_world(std::uint64_t seed, const WorldOptions& = {});

// A session made of functions; those that are not set do what Session does, and bytes are echoed.
// To check that nothing comes early, count from the `now` of a callback: a turn that began before
// the peer wrote may still read its bytes.
struct Handlers {
  std::function<void(Out&, ConnId, Time)> open;
  std::function<void(Out&, Input, Time)> bytes;
  std::function<void(Out&, Time)> eof;
  std::function<void(Out&, const Post&, Time)> post;
  std::function<void(Out&, Time)> deadline;
  std::function<void(Out&, const Reply&, Time)> reply;
  std::function<void(Out&, Time)> room;
  std::function<void(Out&, Time)> drain;
  std::function<void(std::error_code)> close;
};
enum class Pushes : bool { no, yes };
std::unique_ptr<Service> serve(std::function<Handlers()> make, Pushes = Pushes::no);
std::unique_ptr<Service> serve_echo();

using Body = void (*)(const Target&);
// Says why and returns false if the target cannot run on this machine.
bool can_run(const Target&);
void register_one(void (*test)(), const std::string& name);

// Which targets a topic is for: two loops only where loops could matter to it.
enum class Over { one_loop, all };

template <Body kBody, std::size_t kTarget>
void run_on_target() {
  if (can_run(kTargets[kTarget])) kBody(kTargets[kTarget]);
}

template <Body kBody, std::size_t... kTarget>
bool register_each(const char* title, Over over, std::index_sequence<kTarget...>) {
  const auto one = [&](const Target& target, void (*test)()) {
    if (target.loops > 1 && over == Over::one_loop) return;
    register_one(test, std::string(target.name) + " - " + title);
  };
  (one(kTargets[kTarget], &run_on_target<kBody, kTarget>), ...);
  return true;
}

// A test over every backend: each shows up as a test case of its own, "epoll:lt - title".
#define CONFORMANCE(function, title, over)                                               \
  static void function(const Target& target);                                            \
  static const bool function##_registered = ::echolab::test::register_each<&(function)>( \
      title, over, std::make_index_sequence<std::size(::echolab::test::kTargets)>());    \
  static void function([[maybe_unused]] const Target& target)

}  // namespace echolab::test
