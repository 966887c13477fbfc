#include "patterns/request_rules.hpp"

#include <algorithm>
#include <array>
#include <charconv>

namespace echolab::patterns {
namespace {

constexpr unsigned kBadRequest = 400;
constexpr std::size_t kChunkDigits = 16;  // of a 64-bit size; zeros before them say nothing

using Table = std::array<bool, 256>;

constexpr Table table_of(std::string_view extra) {
  Table table{};
  for (int c = '0'; c <= '9'; ++c) table[static_cast<std::size_t>(c)] = true;
  for (int c = 'a'; c <= 'z'; ++c) table[static_cast<std::size_t>(c)] = true;
  for (int c = 'A'; c <= 'Z'; ++c) table[static_cast<std::size_t>(c)] = true;
  for (const char c : extra) table[static_cast<unsigned char>(c)] = true;
  return table;
}
constexpr Table kToken = table_of("!#$%&'*+-.^_`|~");           // RFC 9110, 5.6.2
constexpr Table kAuthority = table_of("-._~!$&'()*+,;=:@%[]");  // RFC 3986, 3.2
constexpr Table kHost = table_of("-._~!$&'()*+,;=:%[]");        // without user information
constexpr Table kTarget = table_of("-._~!$&'()*+,;=:@%/?[]{}|\\^\"<>`");  // all but '#'
// Characters of the last group (braces and the like) are no URI's, but old clients send them as
// they are, and nobody reads them as something else.

bool all(std::string_view text, const Table& table) {
  return std::all_of(text.begin(), text.end(),
                     [&](char c) { return table[static_cast<unsigned char>(c)]; });
}

bool is_control(char c) {
  const auto u = static_cast<unsigned char>(c);
  return (u < 0x20 && c != '\t') || u == 0x7f;
}

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(), is_control);
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool is_hex(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

Refusal bad(const char* why) {
  return {kBadRequest, why};
}

// RFC 9112, 3.2: the four forms of a target.
Refusal check_target(std::string_view method, std::string_view target) {
  if (target.empty()) return bad("no request target");
  if (!all(target, kTarget)) return bad("a byte that a request target must not have");
  if (method == "CONNECT") return {501, "there are no tunnels here"};
  if (target.front() == '/') return {};
  if (target == "*") {
    return method == "OPTIONS" ? Refusal{} : bad("the target * is for OPTIONS only");
  }
  const auto scheme = target.find("://");
  if (scheme == std::string_view::npos) return bad("malformed request target");
  const std::string_view name = target.substr(0, scheme);
  if (!equal_ignoring_case(name, "http") && !equal_ignoring_case(name, "https")) {
    return bad("a scheme that is not served here");
  }
  std::string_view authority = target.substr(scheme + 3);
  authority = authority.substr(0, authority.find_first_of("/?"));
  if (authority.empty() || !all(authority, kAuthority)) return bad("malformed request target");
  if (authority.find('@') != std::string_view::npos) return bad("user information in the target");
  return {};
}

// A field or trailer line is split, and its form checked (RFC 9112, 5).
Refusal split_field(std::string_view line, std::string_view& name, std::string_view& value) {
  if (line.front() == ' ' || line.front() == '\t') return bad("a folded header line");
  const auto colon = line.find(':');
  if (colon == std::string_view::npos) return bad("a header line without colon");
  name = line.substr(0, colon);
  if (name.empty()) return bad("a header line without name");
  if (!all(name, kToken)) return bad("malformed header name");
  value = trimmed(line.substr(colon + 1));
  if (has_control(value)) return bad("a control byte in a header value");
  return {};
}

}  // namespace

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  constexpr auto lower = [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                            [&](char x, char y) { return lower(x) == lower(y); });
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

Refusal HeadRules::length_of_request_line(std::string_view begun, const HttpLimits& limits) {
  const auto space = begun.find(' ');
  if (space == std::string_view::npos) return {};
  const std::string_view rest = begun.substr(space + 1);
  if (std::min(rest.find(' '), rest.size()) <= limits.target) return {};
  return {414, "the request target is too long"};
}

Refusal HeadRules::request_line(std::string_view line) {
  const auto first = line.find(' ');
  const auto last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) return bad("malformed request line");
  const std::string_view method = line.substr(0, first);
  const std::string_view target = line.substr(first + 1, last - first - 1);
  const std::string_view version = line.substr(last + 1);
  if (method.empty() || !all(method, kToken)) return bad("malformed method");
  is_head_ = method == "HEAD";
  // "HTTP/" DIGIT "." DIGIT (RFC 9112, 2.3)
  if (version.size() != 8 || !version.starts_with("HTTP/") || !is_digit(version[5]) ||
      version[6] != '.' || !is_digit(version[7])) {
    return bad("malformed request line");
  }
  if (version[5] != '1') return {505, "only version 1 of HTTP is spoken here"};
  http_1_0_ = version[7] == '0';
  minor_version_at_ = line.size() - 1;
  return check_target(method, target);
}

Refusal HeadRules::field_line(std::string_view line, const HttpLimits& limits) {
  if (++fields_ > limits.fields) return {431, "too many header fields"};
  std::string_view name, value;
  if (const Refusal refusal = split_field(line, name, value)) return refusal;
  if (equal_ignoring_case(name, "host")) {
    ++hosts_;
    if (!all(value, kHost)) return bad("malformed Host");
  } else if (equal_ignoring_case(name, "content-length")) {
    return content_length(value);
  } else if (equal_ignoring_case(name, "transfer-encoding")) {
    ++codings_;
    chunked_ = chunked_ && equal_ignoring_case(value, "chunked");
  } else if (equal_ignoring_case(name, "expect")) {
    (equal_ignoring_case(value, "100-continue") ? expects_continue_ : expects_other_) = true;
  }
  return {};
}

Refusal HeadRules::content_length(std::string_view value) {
  if (++lengths_ > 1) return bad("more than one Content-Length");
  if (value.empty() || !std::all_of(value.begin(), value.end(), is_digit)) {
    return bad("malformed Content-Length");
  }
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), length_);
  if (error != std::errc{}) return bad("malformed Content-Length");
  return {};
}

Refusal HeadRules::end(const HttpLimits& limits) const {
  if (hosts_ > 1) return bad("more than one Host");
  if (hosts_ == 0 && !http_1_0_) return bad("no Host");
  if (codings_ > 0) {
    if (http_1_0_) return bad("Transfer-Encoding in HTTP/1.0");
    if (lengths_ > 0) return bad("both Content-Length and Transfer-Encoding");
    if (!chunked_) return {501, "the only transfer coding here is chunked"};
    if (codings_ > 1) return bad("more than one Transfer-Encoding");
  }
  if (expects_other_ && !http_1_0_) return {417, "the only expectation here is 100-continue"};
  if (length_ > limits.body) return {413, "the request body is too large"};
  return {};
}

Refusal check_chunk_line(std::string_view line) {
  constexpr const char* kWhy = "malformed chunk";
  const auto digits =
      static_cast<std::size_t>(std::find_if_not(line.begin(), line.end(), is_hex) - line.begin());
  if (digits == 0) return bad(kWhy);
  const auto zeros = std::min(line.find_first_not_of('0'), digits);
  if (digits - zeros > kChunkDigits) return bad(kWhy);
  if (has_control(line)) return bad(kWhy);
  return {};
}

bool is_last_chunk(std::string_view line) {
  const auto other = line.find_first_not_of('0');
  return other == std::string_view::npos || !is_hex(line[other]);
}

Refusal check_trailer_line(std::string_view line) {
  std::string_view name, value;
  if (const Refusal refusal = split_field(line, name, value)) return refusal;
  for (const std::string_view framing : {"content-length", "transfer-encoding", "host"}) {
    if (equal_ignoring_case(name, framing)) return bad("a trailer that belongs into the header");
  }
  return {};
}

}  // namespace echolab::patterns
