// One request from bytes, cut anywhere. The rules of request_rules.hpp come first, then Boost.Beast
// parses what has passed them: whole heads, whole chunk headers, and bodies as they come.
//
// What is refused, and with what, depends on the bytes and never on how they were cut: a refusal is
// made at the first byte at which it can be made.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "patterns/http.hpp"
#include "patterns/request_rules.hpp"

namespace echolab::patterns {

class RequestParser {
 public:
  enum class State : std::uint8_t { head, body, complete, refused };

  RequestParser();
  RequestParser(const RequestParser&) = delete;
  RequestParser& operator=(const RequestParser&) = delete;
  ~RequestParser();

  // One that is ready for a new request. A thread keeps one that was given back, with its memory.
  static std::unique_ptr<RequestParser> borrow(const HttpLimits& limits);
  static void give_back(std::unique_ptr<RequestParser>);

  // How many of the bytes belong to this request. Stops behind the head, then behind the body.
  std::size_t feed(std::span<char> bytes);
  [[nodiscard]] State state() const { return state_; }
  [[nodiscard]] const Refusal& refusal() const { return refusal_; }
  // Nothing has come but an empty line, which is no part of a request (RFC 9112, 2.2).
  [[nodiscard]] bool empty() const { return empty_; }

  // Once the head is there.
  [[nodiscard]] const HeadRules& rules() const { return rules_; }
  [[nodiscard]] bool keep_alive() const;
  [[nodiscard]] bool wants_continue() const;  // asked for 100, and a body follows
  // Complete: views into this parser.
  [[nodiscard]] Request request() const;

 private:
  class Beast;

  void start(const HttpLimits& limits);
  bool refuse(Refusal refusal);  // always false
  std::size_t feed_head(std::span<char> bytes);
  // Whether the head is all there: then line_ is its end.
  bool scan_head(std::string_view text);
  void parse_head(std::span<char> head);
  std::size_t feed_body(std::string_view bytes);
  // Whether a chunk's header, and for the last chunk the trailers, are all there.
  bool scan_chunk(std::string_view text);
  bool parse(std::string_view text, std::size_t& used);
  void split_target();

  const HttpLimits* limits_ = nullptr;
  std::unique_ptr<Beast> beast_;
  HeadRules rules_;
  Refusal refusal_;
  State state_ = State::head;
  bool empty_ = true;
  bool skipped_ = false;      // the empty line before the request line
  bool has_line_ = false;     // the request line is there
  bool in_trailers_ = false;  // the last chunk's line is there
  std::size_t start_ = 0;     // of the request line
  std::size_t line_ = 0;      // of the line that is being read
  std::size_t scanned_ = 0;   // no end of line before this
  std::size_t trailers_ = 0;  // lines
  std::string carry_;         // an unfinished head or chunk header
  std::string method_, target_, body_;
  std::string_view path_, query_;
  std::vector<Field> fields_;
};

}  // namespace echolab::patterns
