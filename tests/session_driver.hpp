// Drives one session by hand, without a backend: bytes go in cut as the test says, time is a number
// that the test moves, and everything that comes out is kept. What backends/session.hpp demands of
// a session is checked on the way: it throws std::logic_error on effects behind the end.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/session.hpp"

namespace echolab::test {

class SessionDriver {
 public:
  // Bytes waiting to be sent at which on_room comes, as a backend's Limits::low_water.
  static constexpr std::size_t kLowWater = 64 * 1024;

  explicit SessionDriver(std::unique_ptr<Session> session, ConnId id = {1, 1, 0})
      : session_(std::move(session)) {
    call([&](Out& out) { session_->on_open(out, id, now_); });
  }
  SessionDriver(const SessionDriver&) = delete;
  SessionDriver& operator=(const SessionDriver&) = delete;
  ~SessionDriver() {
    if (!ended_) gone(std::make_error_code(std::errc::connection_reset));
  }

  // One on_bytes, from memory of exactly this size that is gone afterwards. Behind the end of the
  // connection bytes are discarded, as a backend does.
  void feed(std::string_view bytes) {
    if (bytes.empty() || closing_) return;
    std::vector<std::byte> input(bytes.size());
    std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(input.data()));
    call([&](Out& out) { session_->on_bytes(out, input, now_); });
  }
  // Cut before each of these positions; they grow.
  void feed(std::string_view bytes, std::span<const std::size_t> cuts) {
    std::size_t from = 0;
    for (const std::size_t cut : cuts) {
      feed(bytes.substr(from, cut - from));
      from = cut;
    }
    feed(bytes.substr(from));
  }
  void feed_each_byte(std::string_view bytes) {
    for (std::size_t i = 0; i < bytes.size(); ++i) feed(bytes.substr(i, 1));
  }
  void eof() {
    if (!closing_) call([&](Out& out) { session_->on_eof(out, now_); });
  }
  void post(const Post& post) {
    if (!closing_) call([&](Out& out) { session_->on_post(out, post, now_); });
  }
  void reply(CallId id, std::error_code error, std::string_view bytes = {}) {
    if (closing_) return;
    const Reply reply{id, error, std::as_bytes(std::span(bytes))};
    call([&](Out& out) { session_->on_reply(out, reply, now_); });
  }
  void drain() {
    if (!closing_) call([&](Out& out) { session_->on_drain(out, now_); });
  }
  // Moves the time on, with the deadlines that lie on the way.
  void pass(Duration duration) {
    const Time end = now_ + duration;
    while (!closing_ && deadline_ <= end) {
      now_ = std::max(now_, deadline_);
      deadline_ = kNever;
      ++deadlines_;
      call([&](Out& out) { session_->on_deadline(out, now_); });
    }
    now_ = end;
  }
  // The connection breaks; on_close is called. At the end of the driver's life at the latest.
  void gone(std::error_code error = std::make_error_code(std::errc::connection_reset)) {
    ended_ = closing_ = true;
    session_->on_close(error);
    session_.reset();
  }
  // How the client reads: everything at once, or only as much as take() says.
  void stop_reading() { reads_ = false; }
  void take(std::size_t bytes) {
    const std::size_t queued = std::exchange(queued_, queued_ - std::min(queued_, bytes));
    if (queued > queued_) room();
  }

  // Everything that was written, taken by the client or not.
  [[nodiscard]] const std::string& output() const { return output_; }
  std::string take_output() { return std::exchange(output_, {}); }
  [[nodiscard]] bool closed() const { return closing_; }  // also when aborted
  [[nodiscard]] bool aborted() const { return aborted_; }
  [[nodiscard]] Time now() const { return now_; }
  [[nodiscard]] Time deadline() const { return deadline_; }
  [[nodiscard]] std::size_t deadlines() const { return deadlines_; }  // on_deadline calls
  [[nodiscard]] std::size_t callbacks() const { return callbacks_; }
  [[nodiscard]] std::size_t writes() const { return writes_; }  // callbacks that wrote something
  [[nodiscard]] const std::vector<Out::Call>& calls() const { return calls_; }
  [[nodiscard]] Session& session() { return *session_; }

 private:
  template <class Callback>
  void call(Callback callback) {
    if (closing_) throw std::logic_error("a callback behind the end");
    Out out;
    out.set_queued(queued_);
    callback(out);
    ++callbacks_;
    for (std::size_t i = 0; i < out.pieces(); ++i) {
      const Bytes bytes = out.bytes(i);
      output_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    }
    if (out.total() > 0) ++writes_;
    if (!reads_) queued_ += out.total();
    if (out.deadline()) deadline_ = *out.deadline();
    for (Out::Call& c : out.calls()) calls_.push_back(std::move(c));
    awaits_room_ = awaits_room_ || out.awaits_room();
    aborted_ = out.aborting();
    closing_ = out.closing();
    if (closing_) deadline_ = kNever;
    room();
  }
  void room() {
    if (closing_ || !awaits_room_ || queued_ > kLowWater) return;
    awaits_room_ = false;
    call([&](Out& out) { session_->on_room(out, now_); });
  }

  std::unique_ptr<Session> session_;
  Time now_{std::chrono::hours(1)};
  Time deadline_ = kNever;
  std::string output_;
  std::vector<Out::Call> calls_;
  std::size_t queued_ = 0;
  std::size_t deadlines_ = 0;
  std::size_t callbacks_ = 0;
  std::size_t writes_ = 0;
  bool reads_ = true;
  bool awaits_room_ = false;
  bool closing_ = false;
  bool aborted_ = false;
  bool ended_ = false;
};

}  // namespace echolab::test
