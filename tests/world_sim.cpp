// The world in virtual time: nothing moves but while a test waits, and the same seed moves it
// alike.
#include <utility>

#include "tests/sim_backend.hpp"
#include "tests/world.hpp"

namespace echolab::test {
namespace {

constexpr std::size_t kSocketBuffer = 256 * 1024;  // bytes; what a peer takes without reading

// Runs until it is so, or nothing can happen before `limit` any more.
bool run_until(SimBackend& sim, Time limit, const std::function<bool()>& so) {
  while (!so()) {
    if (sim.step()) continue;
    // A question that is itself an exchange may have moved more than it has seen.
    if (so()) return true;
    if (!sim.advance(limit)) return so();
  }
  return true;
}

class SimPeer final : public Peer {
 public:
  SimPeer(SimBackend& sim, std::shared_ptr<Link> link) : sim_(sim), link_(std::move(link)) {}
  ~SimPeer() override { close(); }

  std::size_t send_some(Bytes bytes) override {
    if (link_->server_reset || link_->server_gone) state_ = State::reset;
    if (state_ == State::reset || bytes.empty()) return 0;
    std::size_t n = std::min(bytes.size(), link_->up_capacity - link_->up.size());
    if (n > 0 && sim_.choose(2) == 0) n = 1 + sim_.choose(n);
    link_->up.push(bytes.first(n));
    return n;
  }
  Blob read_some(std::size_t most) override {
    if (most == 0 || state_ == State::eof) return {};
    if (link_->server_reset) {
      state_ = State::reset;
      return {};
    }
    Blob got = link_->down.pop(most);
    if (got.empty() && link_->down_fin) state_ = State::eof;
    return got;
  }
  bool wait(bool to_read, bool to_write, Duration at_most) override {
    return run_until(sim_, sim_.now() + at_most, [&] {
      const Link& l = *link_;
      return l.server_reset || (to_read && (!l.down.empty() || l.down_fin)) ||
             (to_write && (l.up.size() < l.up_capacity || l.server_gone));
    });
  }
  void half_close() override { link_->up_fin = true; }
  void reset() override {
    if (link_->peer_gone) return;
    link_->peer_gone = true;
    link_->peer_reset = true;
  }
  void close() override {
    if (link_->peer_gone) return;
    link_->peer_gone = true;
    (link_->down.empty() ? link_->up_fin : link_->peer_reset) = true;
  }

 private:
  SimBackend& sim_;
  std::shared_ptr<Link> link_;
};

class ScriptedUpstream final : public TestUpstream, public SimServer {
 public:
  ScriptedUpstream(SimBackend& sim, Listens listens, std::uint16_t port) : sim_(sim) {
    address_ = {"127.0.0.1", port};
    full_ = listens == Listens::full;
    if (listens != Listens::no) sim_.listen(port, *this);
  }
  void behave(Habit habit, Duration delay) override {
    habit_ = habit;
    delay_ = delay;
  }
  void close_all() override { sim_.hang_up(address_.port); }
  [[nodiscard]] std::size_t accepted() const override { return accepted_; }
  [[nodiscard]] std::size_t open() const override { return open_; }

  void connected() override {
    if (!full_) ++accepted_, ++open_;
  }
  void disconnected() override {
    if (!full_) --open_;
  }
  SimReply answer(const Out::Call& call, bool fresh) override {
    SimReply reply{delay_, {}, call.request};
    const bool closes =
        habit_ == Habit::half || habit_ == Habit::hang_up || (habit_ == Habit::once && !fresh);
    if (full_ || habit_ == Habit::silent) reply.after = Duration::max();
    if (closes) reply.error = std::make_error_code(std::errc::connection_reset);
    reply.begun = habit_ == Habit::half;
    if (habit_ == Habit::chatty) reply.bytes.push_back({});
    return reply;
  }

 private:
  SimBackend& sim_;
  bool full_ = false;
  Habit habit_ = Habit::echo;
  Duration delay_{};
  std::size_t accepted_ = 0;
  std::size_t open_ = 0;
};

class SimWorld final : public World {
 public:
  SimWorld(std::uint64_t seed, const WorldOptions& options)
      : sim_(seed, [&] {
          Options o;
          o.limits = options.limits;
          return o;
        }()) {}
  ~SimWorld() override {
    sim_.stop(Duration::zero());
    run_out();
  }

  void start(std::unique_ptr<Service> service) override {
    service_ = std::make_unique<WatchedService>(std::move(service), watch, false);
    sim_.start(*service_);
  }
  std::unique_ptr<Peer> try_connect(PeerOptions options) override {
    const auto capacity = options.receive_buffer > 0
                              ? static_cast<std::size_t>(options.receive_buffer)
                              : kSocketBuffer;
    auto link = sim_.connect(capacity);
    return link ? std::make_unique<SimPeer>(sim_, std::move(link)) : nullptr;
  }
  Backend& backend() override { return sim_; }
  Time now() override { return sim_.now(); }
  void pass(Duration d) override {
    const Time end = sim_.now() + d;
    run_until(sim_, end, [&] { return false; });
  }
  bool eventually(const std::function<bool()>& so) override {
    return run_until(sim_, sim_.now() + kPatience, so);
  }
  void race(std::vector<std::function<bool()>> actors) override {
    while (!actors.empty()) {
      const std::size_t i = sim_.choose(actors.size());
      if (!actors[i]()) actors.erase(actors.begin() + static_cast<std::ptrdiff_t>(i));
      for (std::uint64_t n = sim_.choose(4); n > 0; --n) sim_.step();
    }
  }
  bool run_returned() override { return sim_.finished(); }

 private:
  bool run_out() {
    return run_until(sim_, sim_.now() + 2 * kPatience, [&] { return run_returned(); });
  }
  void join() override {
    if (service_ && !run_out()) throw std::runtime_error("the simulated run does not end");
    service_.reset();
  }
  std::unique_ptr<TestUpstream> make_upstream(TestUpstream::Listens listens) override {
    return std::make_unique<ScriptedUpstream>(sim_, listens, ++upstreams_);
  }

  SimBackend sim_;
  std::uint16_t upstreams_ = 0;
  std::unique_ptr<Service> service_;
};

}  // namespace

std::unique_ptr<World> make_sim_world(std::uint64_t seed, const WorldOptions& options) {
  return std::make_unique<SimWorld>(seed, options);
}

}  // namespace echolab::test
