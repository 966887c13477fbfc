// Handlers without HTTP and without I/O: one client's requests, what they are answered, and what
// becomes of the parked ones. Time is a number.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "patterns/http.hpp"
#include "patterns/random.hpp"
#include "tests/world.hpp"

namespace echolab::test {

// Keeps what is posted. Any thread.
class PostLog final : public Poster {
 public:
  struct Entry {
    std::vector<ConnId> to;
    Post post;
  };
  void post(std::span<const ConnId> to, const Post& post) noexcept override {
    const std::lock_guard lock(mutex_);
    entries_.push_back({{to.begin(), to.end()}, post});
    arrived_.notify_all();
  }
  // The oldest; waits for it.
  Entry take() {
    std::unique_lock lock(mutex_);
    if (!arrived_.wait_for(lock, kPatience, [&] { return !entries_.empty(); })) {
      throw std::runtime_error("nothing was posted");
    }
    Entry entry = std::move(entries_.front());
    entries_.pop_front();
    return entry;
  }
  [[nodiscard]] std::size_t size() const {
    const std::lock_guard lock(mutex_);
    return entries_.size();
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Entry> entries_;
};

// One client. What a handler may not do throws.
class Exchange final : public patterns::Answer {
 public:
  Exchange(patterns::Handler& handler, const Time& now, std::uint32_t slot = 0)
      : handler_(handler), now_(now), id_{slot, 1, 0} {}

  struct Result {
    unsigned status = 0;  // 0: parked
    std::string body;
    std::vector<patterns::Field> fields;
    // Empty if it is not there; several are a mistake.
    [[nodiscard]] std::string field(std::string_view name) const {
      std::string value;
      for (const patterns::Field& f : fields) {
        if (f.name != name) continue;
        if (!value.empty()) throw std::logic_error("twice: " + f.name);
        value = f.value;
      }
      return value;
    }
  };
  // `target` with its query.
  Result ask(std::string_view method, std::string_view target, std::string_view body = {},
             const std::vector<patterns::Field>& fields = {}) {
    if (pending_) throw std::logic_error("the last request is not answered");
    result_ = {};
    const std::size_t mark = std::min(target.find('?'), target.size());
    const std::string_view query = target.substr(std::min(mark + 1, target.size()));
    handler_.handle({method, target.substr(0, mark), query, body, fields}, *this);
    if (result_.status == 0 && !pending_) throw std::logic_error("neither answered nor parked");
    return result_;
  }
  // What a parked request is told. The result is as that of ask().
  Result deadline() {
    return tell([&](patterns::Pending& p) { p.on_deadline(*this); });
  }
  Result eof() {
    return tell([&](patterns::Pending& p) { p.on_eof(*this); });
  }
  Result ring(const Post& post) {
    return tell([&](patterns::Pending& p) { p.on_post(*this, post); });
  }
  Result reply(const Reply& reply) {
    return tell([&](patterns::Pending& p) { p.on_reply(*this, reply); });
  }
  void leave() { pending_.reset(); }

  [[nodiscard]] bool parked() const { return pending_ != nullptr; }
  [[nodiscard]] Time wakes_at() const { return wake_at_; }
  [[nodiscard]] const std::vector<Out::Call>& calls() const { return calls_; }

  void send(patterns::Response response) override {
    if (result_.status != 0) throw std::logic_error("answered twice");
    result_ = {response.status, std::move(response.body), std::move(response.fields)};
    pending_.reset();
    wake_at_ = kNever;
  }
  void wait(std::unique_ptr<patterns::Pending> pending) override { pending_ = std::move(pending); }
  void wake_at(Time when) override {
    if (!pending_) throw std::logic_error("a deadline for nobody");
    wake_at_ = when;
  }
  void call(const Upstream& upstream, CallId id, Bytes request, std::size_t reply_size,
            Duration timeout) override {
    calls_.push_back({id, &upstream, {request.begin(), request.end()}, reply_size, timeout});
  }
  void stream(patterns::Response) override { unexpected(); }
  void piece(std::string_view) override { unexpected(); }
  void share(const Frame&) override { unexpected(); }
  void finish() override { unexpected(); }
  void upgrade(patterns::Response, std::unique_ptr<Session>) override { unexpected(); }
  void await_room() override { unexpected(); }
  void close() override { unexpected(); }
  void abort() override { unexpected(); }
  [[nodiscard]] ConnId id() const override { return id_; }
  [[nodiscard]] Time now() const override { return now_; }
  [[nodiscard]] std::size_t queued() const override { return 0; }
  [[nodiscard]] bool streaming() const override { return false; }

 private:
  template <class Event>
  Result tell(Event event) {
    if (!pending_) throw std::logic_error("nobody waits");
    event(*pending_);
    return result_;
  }
  static void unexpected() { throw std::logic_error("these handlers answer as a whole"); }

  patterns::Handler& handler_;
  const Time& now_;
  ConnId id_;
  Result result_;
  std::unique_ptr<patterns::Pending> pending_;
  Time wake_at_ = kNever;
  std::vector<Out::Call> calls_;
};

// Random bytes that a test foresees: all 1, then all 2, and so on.
inline patterns::RandomSource counting_random() {
  return [n = std::make_shared<std::uint8_t>(0)](Input bytes) {
    std::fill(bytes.begin(), bytes.end(), static_cast<std::byte>(++*n));
  };
}

}  // namespace echolab::test
