// A client's side of HTTP/1.1 and of event streams, as small as it can be: takes bytes cut
// anywhere, checks what it understands, and throws std::runtime_error on everything else.
#pragma once

#include <charconv>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace echolab::test {

// One response with a Content-Length, without a body, or chunked.
class ResponseReader {
 public:
  // `to_head`: it answers a HEAD and has no body.
  explicit ResponseReader(bool to_head = false) : to_head_(to_head) {}

  void feed(std::string_view bytes) {
    input_ += bytes;
    while (step()) {
    }
  }
  [[nodiscard]] bool has_head() const { return status != 0; }
  [[nodiscard]] bool complete() const { return state_ == State::complete; }
  [[nodiscard]] std::string field(const std::string& name) const {
    const auto found = fields.find(name);
    return found == fields.end() ? "" : found->second;
  }
  // What was behind it; the next response's.
  std::string take_rest() { return std::exchange(input_, {}); }
  // The body's bytes that have come since the last time.
  std::string take_body() { return std::exchange(body, {}); }

  unsigned status = 0;
  std::map<std::string, std::string> fields;  // names as sent
  std::string body;

 private:
  enum class State { head, body, chunk_size, chunk, chunk_end, trailer, complete };

  bool line(std::string& into) {
    const std::size_t end = input_.find("\r\n");
    if (end == std::string::npos) return false;
    into = input_.substr(0, end);
    input_.erase(0, end + 2);
    return true;
  }
  static std::size_t number(const std::string& text, int base) {
    std::size_t value = 0;
    const char* const end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, value, base);
    if (error != std::errc{} || rest != end) throw std::runtime_error("not a number: " + text);
    return value;
  }
  bool take(State next) {
    if (input_.empty() && left_ > 0) return false;
    const std::size_t n = std::min(left_, input_.size());
    body.append(input_, 0, n);
    input_.erase(0, n);
    left_ -= n;
    if (left_ == 0) state_ = next;
    return true;
  }

  bool step() {
    std::string text;
    switch (state_) {
      case State::head: {
        const std::size_t end = input_.find("\r\n\r\n");
        if (end == std::string::npos) return false;
        line(text);
        if (text.size() < 12 || text.compare(0, 9, "HTTP/1.1 ") != 0) {
          throw std::runtime_error("not a status line: " + text);
        }
        status = static_cast<unsigned>(number(text.substr(9, 3), 10));
        while (line(text) && !text.empty()) {
          const std::size_t colon = text.find(": ");
          if (colon == std::string::npos) throw std::runtime_error("not a field: " + text);
          fields[text.substr(0, colon)] = text.substr(colon + 2);
        }
        const bool chunked = field("Transfer-Encoding") == "chunked";
        left_ = fields.count("Content-Length") > 0 ? number(field("Content-Length"), 10) : 0;
        state_ = to_head_ || status == 204 ? State::complete
                 : chunked                 ? State::chunk_size
                                           : State::body;
        return state_ != State::complete;
      }
      case State::body:
        return take(State::complete);
      case State::chunk_size:
        if (!line(text)) return false;
        left_ = number(text, 16);
        state_ = left_ == 0 ? State::trailer : State::chunk;
        return true;
      case State::chunk:
        return take(State::chunk_end);
      case State::chunk_end:
        if (!line(text)) return false;
        if (!text.empty()) throw std::runtime_error("a chunk is longer than its size");
        state_ = State::chunk_size;
        return true;
      case State::trailer:
        if (!line(text)) return false;
        if (text.empty()) state_ = State::complete;
        return true;
      case State::complete:
        return false;
    }
    return false;
  }

  bool to_head_;
  State state_ = State::head;
  std::size_t left_ = 0;
  std::string input_;
};

// An EventSource (WHATWG HTML, 9.2.6).
class EventReader {
 public:
  struct Event {
    std::string id, type, data;
  };

  void feed(std::string_view text) {
    for (const char c : text) {
      const bool second_half = c == '\n' && std::exchange(after_cr_, false);
      if (second_half) continue;
      after_cr_ = c == '\r';
      if (c == '\r') lf_only = false;
      if (c == '\r' || c == '\n') {
        end_line(std::exchange(line_, {}));
      } else {
        line_ += c;
      }
    }
  }
  std::vector<Event> take() { return std::exchange(events_, {}); }

  std::string last_event_id;
  std::string retry;
  std::size_t comments = 0;
  bool lf_only = true;

 private:
  void end_line(const std::string& line) {
    if (line.empty()) {
      last_event_id = id_;
      if (has_data_) events_.push_back({id_, type_.empty() ? "message" : type_, data_});
      type_.clear();
      data_.clear();
      has_data_ = false;
      return;
    }
    const std::size_t colon = line.find(':');
    if (colon == 0) {
      ++comments;
      return;
    }
    const std::string name = line.substr(0, colon);
    std::string value = colon == std::string::npos ? "" : line.substr(colon + 1);
    if (!value.empty() && value[0] == ' ') value.erase(0, 1);
    if (name == "data") {
      if (std::exchange(has_data_, true)) data_ += '\n';
      data_ += value;
    } else if (name == "id") {
      id_ = value;
    } else if (name == "event") {
      type_ = value;
    } else if (name == "retry") {
      retry = value;
    } else {
      throw std::runtime_error("unknown field in an event stream: " + line);
    }
  }

  std::string line_, id_, type_, data_;
  bool has_data_ = false;
  bool after_cr_ = false;
  std::vector<Event> events_;
};

}  // namespace echolab::test
