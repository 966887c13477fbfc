// What requests and responses are made of, without a connection.
#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

#include "patterns/http.hpp"
#include "patterns/request_rules.hpp"

namespace echolab::patterns {
namespace {

struct Reason {
  unsigned status;
  const char* text;
};
// RFC 9110, 15, and 428, 429, 431 of RFC 6585.
constexpr Reason kReasons[] = {
    {100, "Continue"},
    {101, "Switching Protocols"},
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {206, "Partial Content"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {417, "Expectation Failed"},
    {422, "Unprocessable Content"},
    {426, "Upgrade Required"},
    {428, "Precondition Required"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
};

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

void put_digits(char* at, unsigned value, int digits) {
  for (int i = digits - 1; i >= 0; --i, value /= 10) at[i] = static_cast<char>('0' + value % 10);
}

}  // namespace

std::string http_date(std::chrono::system_clock::time_point at) {
  using namespace std::chrono;
  static constexpr std::array kDays = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static constexpr std::array kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                         "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const auto day = floor<days>(at);
  const year_month_day date(day);
  const hh_mm_ss time(floor<seconds>(at - day));
  std::string text = "Sun, 06 Nov 1994 08:49:37 GMT";
  std::memcpy(&text[0], kDays[weekday(day).c_encoding()], 3);
  put_digits(&text[5], static_cast<unsigned>(date.day()), 2);
  std::memcpy(&text[8], kMonths[static_cast<unsigned>(date.month()) - 1], 3);
  put_digits(&text[12], static_cast<unsigned>(static_cast<int>(date.year())), 4);
  put_digits(&text[17], static_cast<unsigned>(time.hours().count()), 2);
  put_digits(&text[20], static_cast<unsigned>(time.minutes().count()), 2);
  put_digits(&text[23], static_cast<unsigned>(time.seconds().count()), 2);
  return text;
}

const char* reason_of(unsigned status) {
  const auto* found = std::lower_bound(std::begin(kReasons), std::end(kReasons), status,
                                       [](const Reason& r, unsigned s) { return r.status < s; });
  return found != std::end(kReasons) && found->status == status ? found->text : "";
}

std::string_view Request::field(std::string_view name) const {
  for (const Field& f : fields) {
    if (equal_ignoring_case(f.name, name)) return f.value;
  }
  return {};
}

bool Request::lists(std::string_view name, std::string_view token) const {
  // Several fields of one name are one list (RFC 9110, 5.3).
  for (const Field& f : fields) {
    if (!equal_ignoring_case(f.name, name)) continue;
    for (std::string_view rest = f.value; !rest.empty();) {
      const auto comma = std::min(rest.find(','), rest.size());
      if (equal_ignoring_case(trimmed(rest.substr(0, comma)), token)) return true;
      rest.remove_prefix(std::min(comma + 1, rest.size()));
    }
  }
  return false;
}

bool percent_decode(std::string_view text, std::string& decoded) {
  decoded.clear();
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      decoded += text[i];
      continue;
    }
    if (i + 2 >= text.size()) return false;
    const int high = hex_value(text[i + 1]);
    const int low = hex_value(text[i + 2]);
    if (high < 0 || low < 0) return false;
    decoded += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return true;
}

bool Request::parameter(std::string_view name, std::string& value) const {
  const auto decode = [](std::string_view text, std::string& to) {
    std::string spaced(text);
    std::replace(spaced.begin(), spaced.end(), '+', ' ');
    return percent_decode(spaced, to);
  };
  std::string key;
  for (std::string_view rest = query; !rest.empty();) {
    const auto end = std::min(rest.find('&'), rest.size());
    const std::string_view pair = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const auto equals = std::min(pair.find('='), pair.size());
    if (!decode(pair.substr(0, equals), key) || key != name) continue;
    return decode(pair.substr(std::min(equals + 1, pair.size())), value);
  }
  return false;
}

Response text(unsigned status, std::string_view line) {
  Response response{status, {{"Content-Type", "text/plain; charset=utf-8"}}, std::string(line)};
  response.body += '\n';
  return response;
}

Response json(unsigned status, std::string body) {
  return {status, {{"Content-Type", "application/json"}}, std::move(body)};
}

Frame as_chunk(std::string_view piece) {
  char size[sizeof(std::size_t) * 2];
  const auto end = std::to_chars(std::begin(size), std::end(size), piece.size(), 16).ptr;
  std::string chunk(size, end);
  chunk.reserve(chunk.size() + piece.size() + 4);
  chunk.append("\r\n").append(piece).append("\r\n");
  const auto bytes = std::as_bytes(std::span(chunk));
  return std::make_shared<const std::vector<std::byte>>(bytes.begin(), bytes.end());
}

void Pending::on_drain(Answer& answer) {
  if (answer.streaming()) return answer.finish();
  answer.send(text(503, "the server is stopping"));
}

}  // namespace echolab::patterns
