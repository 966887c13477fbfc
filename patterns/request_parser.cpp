#include "patterns/request_parser.hpp"

#include <algorithm>
#include <boost/beast/http/basic_parser.hpp>
#include <optional>
#include <utility>

namespace echolab::patterns {
namespace {

namespace http = boost::beast::http;
using boost::beast::string_view;

// Bytes of a chunk's first line, mostly extensions, which mean nothing here: far more than anyone
// has use for, far less than would be worth sending instead of a body.
constexpr std::size_t kChunkLine = 256;
// Bytes of memory that a parser keeps for the next request; what is larger was an exception.
constexpr std::size_t kKeep = 64 * 1024;

std::string_view std_view(string_view text) {
  return {text.data(), text.size()};
}

}  // namespace

// Beast's parser with its results put where they belong.
class RequestParser::Beast {
 public:
  class Parser final : public http::basic_parser<true> {
   public:
    explicit Parser(RequestParser& to) : to_(to) {}
    [[nodiscard]] bool between_chunks() const { return between_chunks_; }
    [[nodiscard]] bool first_chunk() const { return first_chunk_; }

   private:
    using Error = boost::beast::error_code;
    void on_request_impl(http::verb, string_view method, string_view target, int, Error&) override {
      to_.method_ = std_view(method);
      to_.target_ = std_view(target);
    }
    void on_response_impl(int, string_view, int, Error&) override {}
    void on_field_impl(http::field, string_view name, string_view value, Error&) override {
      if (to_.state_ != State::head) return;  // a trailer: checked, of no use here
      to_.fields_.push_back({std::string(std_view(name)), std::string(std_view(value))});
    }
    void on_header_impl(Error&) override {}
    void on_body_init_impl(const boost::optional<std::uint64_t>&, Error&) override {}
    std::size_t on_body_impl(string_view body, Error&) override {
      to_.body_ += std_view(body);
      return body.size();
    }
    void on_chunk_header_impl(std::uint64_t, string_view, Error&) override {
      between_chunks_ = false;
      first_chunk_ = false;
    }
    std::size_t on_chunk_body_impl(std::uint64_t remain, string_view body, Error&) override {
      to_.body_ += std_view(body);
      between_chunks_ = remain == body.size();
      return body.size();
    }
    void on_finish_impl(Error&) override {}

    RequestParser& to_;
    bool between_chunks_ = true;
    bool first_chunk_ = true;
  };

  std::optional<Parser> parser;  // one request's
};

RequestParser::RequestParser() : beast_(std::make_unique<Beast>()) {
}
RequestParser::~RequestParser() = default;

namespace {
thread_local std::unique_ptr<RequestParser> spare;
}

std::unique_ptr<RequestParser> RequestParser::borrow(const HttpLimits& limits) {
  auto parser = spare ? std::move(spare) : std::make_unique<RequestParser>();
  parser->start(limits);
  return parser;
}

void RequestParser::give_back(std::unique_ptr<RequestParser> parser) {
  if (spare || parser->body_.capacity() + parser->carry_.capacity() > kKeep) return;
  spare = std::move(parser);
}

void RequestParser::start(const HttpLimits& limits) {
  limits_ = &limits;
  beast_->parser.emplace(*this);
  rules_ = {};
  refusal_ = {};
  state_ = State::head;
  empty_ = true;
  skipped_ = has_line_ = in_trailers_ = false;
  start_ = line_ = scanned_ = trailers_ = 0;
  carry_.clear();
  body_.clear();
  fields_.clear();
}

bool RequestParser::keep_alive() const {
  return beast_->parser->keep_alive();
}

bool RequestParser::wants_continue() const {
  return rules_.expects_continue() && !rules_.http_1_0() && state_ == State::body;
}

Request RequestParser::request() const {
  return {method_, path_, query_, body_, fields_, rules_.http_1_0()};
}

bool RequestParser::refuse(Refusal refusal) {
  refusal_ = refusal;
  state_ = State::refused;
  return false;
}

std::size_t RequestParser::feed(std::span<char> bytes) {
  if (state_ == State::head) return feed_head(bytes);
  return feed_body({bytes.data(), bytes.size()});
}

// ---- the head ---------------------------------------------------------------------------------

std::size_t RequestParser::feed_head(std::span<char> bytes) {
  // One byte more than the limit is enough to see that it is broken.
  const std::size_t before = carry_.size();
  std::span<char> text = bytes.first(std::min(bytes.size(), limits_->header + 1 - before));
  const std::size_t took = text.size();
  if (before > 0) {
    carry_.append(text.data(), text.size());
    text = carry_;
  }
  if (scan_head({text.data(), text.size()})) {
    const std::size_t end = line_;
    parse_head(text.subspan(start_, end - start_));
    carry_.clear();
    line_ = scanned_ = 0;
    return end - before;
  }
  if (state_ == State::head && before == 0) carry_.assign(text.data(), text.size());
  return took;
}

bool RequestParser::scan_head(std::string_view text) {
  for (;;) {
    const auto lf = text.find('\n', scanned_);
    const std::string_view raw = text.substr(line_, std::min(lf, text.size()) - line_);
    if (!raw.empty() && raw != "\r") empty_ = false;
    if (!has_line_) {
      if (const Refusal refusal = HeadRules::length_of_request_line(raw, *limits_)) {
        return refuse(refusal);
      }
    }
    if (std::min(lf, text.size()) >= limits_->header + (lf == std::string_view::npos ? 1 : 0)) {
      return refuse({431, "the request header is too large"});
    }
    if (lf == std::string_view::npos) {
      scanned_ = text.size();
      return false;
    }
    if (!raw.ends_with('\r')) return refuse({400, "a line feed without carriage return"});
    const std::string_view line = raw.substr(0, raw.size() - 1);
    if (line.find('\r') != std::string_view::npos) {
      return refuse({400, "a carriage return without line feed"});
    }
    line_ = scanned_ = lf + 1;
    if (!line.empty()) {
      const Refusal refusal =
          has_line_ ? rules_.field_line(line, *limits_) : rules_.request_line(line);
      if (refusal) return refuse(refusal);
      has_line_ = true;
    } else if (has_line_) {
      const Refusal refusal = rules_.end(*limits_);
      return refusal ? refuse(refusal) : true;
    } else {
      if (std::exchange(skipped_, true)) return refuse({400, "no request line"});
      start_ = line_;
    }
  }
}

void RequestParser::parse_head(std::span<char> head) {
  if (!rules_.http_1_0()) head[rules_.minor_version_at()] = '1';
  auto& parser = *beast_->parser;
  parser.header_limit(static_cast<std::uint32_t>(head.size() + 1));
  parser.body_limit(limits_->body);
  std::size_t used = 0;
  if (!parse({head.data(), head.size()}, used)) return;
  split_target();
  state_ = parser.is_done() ? State::complete : State::body;
}

// RFC 9112, 3.2. An absolute target's authority says no more than Host: there is one server here.
void RequestParser::split_target() {
  std::string_view target = target_;
  if (!target.starts_with('/') && target != "*") {
    target.remove_prefix(target.find("://") + 3);
    target.remove_prefix(std::min(target.find_first_of("/?"), target.size()));
  }
  const auto mark = target.find('?');
  path_ = target.substr(0, mark);
  query_ = mark == std::string_view::npos ? std::string_view() : target.substr(mark + 1);
  if (path_.empty()) path_ = "/";
}

// ---- the body ---------------------------------------------------------------------------------

std::size_t RequestParser::feed_body(std::string_view bytes) {
  const auto& parser = *beast_->parser;
  const std::size_t before = carry_.size();
  std::string_view text = bytes;
  if (before > 0) {
    carry_ += bytes;
    text = carry_;
  }
  std::size_t used = 0;
  while (used < text.size() && state_ == State::body) {
    if (parser.chunked() && parser.between_chunks()) {
      if (!scan_chunk(text.substr(used))) break;
      line_ = scanned_ = 0;
    }
    if (!parse(text.substr(used), used)) break;
    if (parser.is_done()) state_ = State::complete;
  }
  if (state_ != State::body) return used < before ? bytes.size() : used - before;
  if (before > 0) {
    carry_.erase(0, used);
  } else {
    carry_.assign(text.substr(used));
  }
  return bytes.size();
}

bool RequestParser::scan_chunk(std::string_view text) {
  // The end of the former chunk's data is read with the next header.
  if (line_ == 0 && !beast_->parser->first_chunk()) {
    constexpr std::string_view kEnd = "\r\n";
    const std::string_view end = text.substr(0, kEnd.size());
    if (end != kEnd.substr(0, end.size())) return refuse({400, "malformed chunk"});
    if (end.size() < kEnd.size()) return false;
    line_ = scanned_ = kEnd.size();
  }
  for (;;) {
    const auto lf = text.find('\n', scanned_);
    const std::size_t end = std::min(lf, text.size());
    if (!in_trailers_ && end - line_ > kChunkLine) return refuse({400, "malformed chunk"});
    if (end > limits_->header) return refuse({431, "the trailer fields are too large"});
    if (lf == std::string_view::npos) {
      scanned_ = end;
      return false;
    }
    std::string_view line = text.substr(line_, lf - line_);
    if (!line.ends_with('\r')) return refuse({400, "malformed chunk"});
    line.remove_suffix(1);
    line_ = scanned_ = lf + 1;
    if (!in_trailers_) {
      if (const Refusal refusal = check_chunk_line(line)) return refuse(refusal);
      if (!is_last_chunk(line)) return true;
      in_trailers_ = true;
    } else if (line.empty()) {
      return true;
    } else {
      if (++trailers_ > limits_->fields) return refuse({431, "too many trailer fields"});
      if (const Refusal refusal = check_trailer_line(line)) return refuse(refusal);
    }
  }
}

// ---- Beast ------------------------------------------------------------------------------------

bool RequestParser::parse(std::string_view text, std::size_t& used) {
  boost::beast::error_code error;
  used += beast_->parser->put(boost::asio::const_buffer(text.data(), text.size()), error);
  if (!error) return true;
  if (error == http::error::body_limit) return refuse({413, "the request body is too large"});
  return refuse({400, state_ == State::head ? "malformed header" : "malformed chunk"});
}

}  // namespace echolab::patterns
