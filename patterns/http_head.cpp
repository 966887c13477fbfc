#include "patterns/http_head.hpp"

#include <algorithm>
#include <charconv>
#include <string>

#include "patterns/request_rules.hpp"

namespace echolab::patterns {
namespace {

// One thread's last "Date: ...\r\n": made once a second, not once an answer.
std::string_view date_line(std::chrono::system_clock::time_point now) {
  thread_local std::chrono::sys_seconds second{std::chrono::seconds(-1)};
  thread_local std::string line;
  if (const auto at = std::chrono::floor<std::chrono::seconds>(now); at != second) {
    line = "Date: " + http_date(at) + "\r\n";
    second = at;
  }
  return line;
}

void write_number(Out& out, std::size_t number, int base = 10) {
  char digits[20];  // of 2^64
  const auto end = std::to_chars(std::begin(digits), std::end(digits), number, base).ptr;
  write_text(out, {digits, static_cast<std::size_t>(end - digits)});
}

void write_status_line(Out& out, unsigned status) {
  if (status == 200) return write_text(out, "HTTP/1.1 200 OK\r\n");
  write_text(out, "HTTP/1.1 ");
  write_number(out, status);
  write_text(out, " ");
  write_text(out, reason_of(status));
  write_text(out, "\r\n");
}

void write_field(Out& out, std::string_view name, std::string_view value) {
  write_text(out, name);
  write_text(out, ": ");
  // What a client sent may come back in a value. It must not become a line of its own.
  constexpr auto breaks = [](char c) { return c == '\r' || c == '\n' || c == '\0'; };
  if (std::none_of(value.begin(), value.end(), breaks)) {
    write_text(out, value);
  } else {
    std::string safe(value);
    std::replace_if(safe.begin(), safe.end(), breaks, ' ');
    write_text(out, safe);
  }
  write_text(out, "\r\n");
}

}  // namespace

void write_text(Out& out, std::string_view text) {
  out.write(std::as_bytes(std::span(text)));
}

void write_chunk(Out& out, std::string_view piece) {
  write_number(out, piece.size(), 16);
  write_text(out, "\r\n");
  write_text(out, piece);
  write_text(out, "\r\n");
}

bool has_body(unsigned status) {
  return status >= 200 && status != 204 && status != 304;
}

void write_head(Out& out, const Response& head, const HeadFacts& facts) {
  write_status_line(out, head.status);
  write_text(out, date_line(facts.now));
  for (const Field& f : head.fields) write_field(out, f.name, f.value);
  if (facts.length) {
    write_text(out, "Content-Length: ");
    write_number(out, *facts.length);
    write_text(out, "\r\n");
  }
  if (facts.chunked) write_text(out, "Transfer-Encoding: chunked\r\n");
  if (!facts.connection.empty()) write_field(out, "Connection", facts.connection);
  write_text(out, "\r\n");
}

void write_upgrade_head(Out& out, const Response& head) {
  write_status_line(out, 101);
  bool has_connection = false;
  for (const Field& f : head.fields) {
    has_connection = has_connection || equal_ignoring_case(f.name, "Connection");
    write_field(out, f.name, f.value);
  }
  if (!has_connection) write_text(out, "Connection: Upgrade\r\n");
  write_text(out, "\r\n");
}

}  // namespace echolab::patterns
