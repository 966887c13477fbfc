#include "tests/world.hpp"
#include "tests/skip.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace echolab::test {
namespace {

constexpr std::size_t kReadAtOnce = 1 << 20;  // bytes

std::uint64_t mix(std::uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

void append(Blob& to, const Blob& more) {
  to.insert(to.end(), more.begin(), more.end());
}

class ScriptedSession final : public Session {
 public:
  explicit ScriptedSession(Handlers h) : h_(std::move(h)) {}
  void on_open(Out& out, ConnId id, Time now) override {
    if (h_.open) h_.open(out, id, now);
  }
  void on_bytes(Out& out, Input input, Time now) override {
    h_.bytes ? h_.bytes(out, input, now) : out.forward(input);
  }
  void on_eof(Out& out, Time now) override {
    h_.eof ? h_.eof(out, now) : Session::on_eof(out, now);
  }
  void on_post(Out& out, const Post& post, Time now) override {
    if (h_.post) h_.post(out, post, now);
  }
  void on_deadline(Out& out, Time now) override {
    if (h_.deadline) h_.deadline(out, now);
  }
  void on_reply(Out& out, const Reply& reply, Time now) override {
    if (h_.reply) h_.reply(out, reply, now);
  }
  void on_room(Out& out, Time now) override {
    if (h_.room) h_.room(out, now);
  }
  void on_drain(Out& out, Time now) override {
    h_.drain ? h_.drain(out, now) : Session::on_drain(out, now);
  }
  void on_close(std::error_code error) noexcept override {
    if (h_.close) h_.close(error);
  }

 private:
  Handlers h_;
};

class ScriptedService final : public Service {
 public:
  ScriptedService(std::function<Handlers()> make, Pushes pushes)
      : make_(std::move(make)), pushes_(pushes) {}
  std::unique_ptr<Session> accept() override { return std::make_unique<ScriptedSession>(make_()); }
  [[nodiscard]] bool pushes() const override { return pushes_ == Pushes::yes; }

 private:
  std::function<Handlers()> make_;
  Pushes pushes_;
};

}  // namespace

Blob pattern(std::uint64_t seed, std::size_t size, std::size_t from) {
  // Whole words are copied: a sanitizer would look at every single byte.
  Blob out(size);
  for (std::size_t i = 0; i < size;) {
    const std::size_t at = from + i;
    const std::uint64_t word = mix(seed * 0x100000001b3ULL + at / sizeof(std::uint64_t));
    const std::size_t skip = at % sizeof word;
    const std::size_t n = std::min(sizeof word - skip, size - i);
    std::memcpy(out.data() + i, reinterpret_cast<const std::byte*>(&word) + skip, n);
    i += n;
  }
  return out;
}

Frame frame_of(Blob blob) {
  return std::make_shared<const Blob>(std::move(blob));
}

Blob blob_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

std::string difference(Bytes expected, Bytes got) {
  if (expected.size() == got.size() &&
      (expected.empty() || std::memcmp(expected.data(), got.data(), got.size()) == 0)) {
    return "";
  }
  const auto [e, g] = std::mismatch(expected.begin(), expected.end(), got.begin(), got.end());
  const auto at = e - expected.begin();
  if (e == expected.end() || g == got.end()) {
    return fmt::format("expected {} bytes, got {}; equal as far as both go", expected.size(),
                       got.size());
  }
  return fmt::format("byte {} is {:#04x} instead of {:#04x} (expected {} bytes, got {})", at,
                     std::to_integer<unsigned>(*g), std::to_integer<unsigned>(*e), expected.size(),
                     got.size());
}

std::size_t scaled(std::size_t full, [[maybe_unused]] std::size_t sanitized) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return sanitized;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  return sanitized;
#endif
#endif
  return full;
}

std::uint64_t seed() {
  const char* text = std::getenv("ECHOLAB_SEED");
  return text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
}

void Peer::send(Bytes bytes) {
  const std::size_t all = bytes.size();
  while (!bytes.empty()) {
    const std::size_t n = send_some(bytes);
    bytes = bytes.subspan(n);
    if (n > 0) continue;
    if (state_ == State::reset) {
      throw std::runtime_error(fmt::format("reset with {} of {} bytes to send", bytes.size(), all));
    }
    if (!wait(false, true, kPatience)) {
      throw std::runtime_error(fmt::format(
          "the server took nothing for long, with {} of {} bytes to send", bytes.size(), all));
    }
  }
}

Blob Peer::read(std::size_t n) {
  return exchange({}, n);
}

Blob Peer::exchange(Bytes request, std::size_t reply_size) {
  Blob reply;
  while (!request.empty() || reply.size() < reply_size) {
    const std::size_t sent = send_some(request);
    request = request.subspan(sent);
    const Blob got = read_some(std::min(kReadAtOnce, reply_size - reply.size()));
    append(reply, got);
    if (sent > 0 || !got.empty()) continue;
    const auto status = [&] {
      return fmt::format("with {} bytes to send and {} of {} read", request.size(), reply.size(),
                         reply_size);
    };
    if (state_ == State::eof && reply.size() < reply_size) {
      throw std::runtime_error("end of file " + status());
    }
    if (state_ == State::reset) throw std::runtime_error("reset " + status());
    if (!wait(reply.size() < reply_size, !request.empty(), kPatience)) {
      throw std::runtime_error("nothing moved for long " + status());
    }
  }
  return reply;
}

Blob Peer::exchange_all(Bytes request) {
  Blob reply;
  bool closed = false;
  for (;;) {
    const std::size_t sent = send_some(request);
    request = request.subspan(sent);
    if (request.empty() && !closed) {
      half_close();
      closed = true;
    }
    const Blob got = read_some(kReadAtOnce);
    append(reply, got);
    if (state_ == State::eof && request.empty()) return reply;
    if (sent > 0 || !got.empty()) continue;
    const std::string status =
        fmt::format("with {} bytes to send and {} read", request.size(), reply.size());
    if (state_ == State::reset) throw std::runtime_error("reset " + status);
    if (!wait(state_ == State::open, !request.empty(), kPatience)) {
      throw std::runtime_error("nothing moved for long " + status);
    }
  }
}

Blob Peer::read_all() {
  Blob all;
  for (;;) {
    const Blob got = read_some(kReadAtOnce);
    append(all, got);
    if (state_ == State::eof) return all;
    const std::string status = fmt::format("with {} bytes read, before EOF", all.size());
    if (state_ == State::reset) throw std::runtime_error("reset " + status);
    if (got.empty() && !wait(true, false, kPatience)) {
      throw std::runtime_error("nothing came for long " + status);
    }
  }
}

Peer::State Peer::read_end() {
  for (;;) {
    const Blob got = read_some(kReadAtOnce);
    if (state_ != State::open) return state_;
    if (got.empty() && !wait(true, false, kPatience)) {
      throw std::runtime_error("the connection did not end");
    }
  }
}

std::size_t Peer::send_until_stuck(Bytes bytes) {
  const std::size_t all = bytes.size();
  while (!bytes.empty() && state_ != State::reset) {
    bytes = bytes.subspan(send_some(bytes));
    if (!bytes.empty() && !wait(false, true, kMoment)) break;
  }
  return all - bytes.size();
}

std::vector<Blob> exchange_on_all(Peers& peers, const std::vector<Blob>& requests) {
  std::vector<Blob> replies(peers.size());
  std::vector<std::size_t> sent(peers.size());
  for (;;) {
    Peer* waiting = nullptr;
    std::size_t waiting_for = 0;
    bool moved = false;
    for (std::size_t i = 0; i < peers.size(); ++i) {
      const std::size_t size = requests[i].size();
      if (replies[i].size() == size) continue;
      waiting = peers[i].get();
      waiting_for = i;
      const std::size_t n = waiting->send_some(Bytes(requests[i]).subspan(sent[i]));
      const Blob got = waiting->read_some(std::min(kReadAtOnce, size - replies[i].size()));
      if (waiting->state() != Peer::State::open) {
        throw std::runtime_error(fmt::format("connection {} ended with {} of {} bytes read", i,
                                             replies[i].size(), size));
      }
      sent[i] += n;
      append(replies[i], got);
      moved = moved || n > 0 || !got.empty();
    }
    if (waiting == nullptr) return replies;
    // The others may move meanwhile: they are looked at again when this one has, which it must.
    const bool to_write = sent[waiting_for] < requests[waiting_for].size();
    if (!moved && !waiting->wait(true, to_write, kPatience)) {
      throw std::runtime_error(fmt::format("connection {} does not move", waiting_for));
    }
  }
}

std::unique_ptr<Peer> World::connect(PeerOptions options) {
  auto peer = try_connect(options);
  if (!peer) throw std::runtime_error("the connection was refused");
  return peer;
}

Peers World::connect_many(std::size_t n) {
  Peers peers;
  for (std::size_t i = 0; i < n; ++i) peers.push_back(connect());
  return peers;
}

void World::finish() {
  backend().stop(kPatience);
  join();
  for (const std::string& v : watch.violations()) FAIL_CHECK(v);
  CHECK(watch.opened == watch.accepted);
  CHECK(watch.closed == watch.accepted);
  CHECK(watch.destroyed == watch.accepted);
  const Stats stats = backend().stats();
  CHECK(stats.get(Count::accepted) == static_cast<std::uint64_t>(watch.accepted));
  CHECK(stats.get(Count::closed) == stats.get(Count::accepted));
  CHECK(stats.get(Count::posts) == static_cast<std::uint64_t>(watch.posts));
  CHECK(stats.get(Count::deadlines) == static_cast<std::uint64_t>(watch.deadlines));
  CHECK(stats.get(Count::calls) == static_cast<std::uint64_t>(watch.replies));
}

std::unique_ptr<Service> serve(std::function<Handlers()> make, Pushes pushes) {
  return std::make_unique<ScriptedService>(std::move(make), pushes);
}

std::unique_ptr<Service> serve_echo() {
  return serve([] { return Handlers{}; });
}

bool can_run(const Target& target) {
  if (target.simulated()) return true;
  const std::string name = parse_spec(target.spec).name();
  for (const Variant& v : catalogue()) {
    // threads:pool=64 is listed as threads:pool=N
    if (v.unavailable.empty() ||
        name.substr(0, name.find('=')) != v.name.substr(0, v.name.find('='))) {
      continue;
    }
    skip(fmt::format("{}: {}", name, v.unavailable));
    SUCCEED();
    return false;
  }
  return true;
}

void register_one(void (*test)(), const std::string& name) {
  REGISTER_TEST_CASE(test, name, "[conformance]");
}

}  // namespace echolab::test
