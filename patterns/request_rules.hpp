// What this server demands of a request's head beyond what a lenient parser lets pass, line by
// line. Every shape that two HTTP implementations could read differently (request smuggling, RFC
// 9112, 11.2) fails here, before a parser sees it.
#pragma once

#include <cstddef>
#include <string_view>

#include "patterns/http.hpp"

namespace echolab::patterns {

// Why a request is refused. Status 0: it is not.
struct Refusal {
  unsigned status = 0;
  const char* why = "";
  explicit operator bool() const { return status != 0; }
};

bool equal_ignoring_case(std::string_view, std::string_view);
std::string_view trimmed(std::string_view);  // without spaces and tabs around it

class HeadRules {
 public:
  // The request line, perhaps not all of it yet, is too long already.
  static Refusal length_of_request_line(std::string_view begun, const HttpLimits& limits);
  // Lines without CRLF, each once and in order, then end().
  Refusal request_line(std::string_view line);
  Refusal field_line(std::string_view line, const HttpLimits& limits);
  Refusal end(const HttpLimits& limits) const;

  // The last digit of the version, counted from the start of the request line: HTTP/1.2 and above
  // are to be read as 1.1 (RFC 9110, 2.5).
  [[nodiscard]] std::size_t minor_version_at() const { return minor_version_at_; }
  [[nodiscard]] bool http_1_0() const { return http_1_0_; }
  [[nodiscard]] bool is_head() const { return is_head_; }
  [[nodiscard]] bool expects_continue() const { return expects_continue_; }

 private:
  Refusal content_length(std::string_view value);

  std::size_t minor_version_at_ = 0;
  std::size_t fields_ = 0;
  std::size_t hosts_ = 0;
  std::size_t lengths_ = 0;  // Content-Length fields
  std::size_t codings_ = 0;  // Transfer-Encoding fields
  unsigned long long length_ = 0;
  bool http_1_0_ = false;
  bool is_head_ = false;
  bool chunked_ = true;  // as far as codings_ go
  bool expects_continue_ = false;
  bool expects_other_ = false;
};

// The first line of a chunk without CRLF: size and extensions (RFC 9112, 7.1).
Refusal check_chunk_line(std::string_view line);
bool is_last_chunk(std::string_view line);  // of a line that was checked
Refusal check_trailer_line(std::string_view line);

}  // namespace echolab::patterns
