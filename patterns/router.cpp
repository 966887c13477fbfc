#include "patterns/router.hpp"

#include <algorithm>
#include <array>

namespace echolab::patterns {
namespace {

// RFC 9110, 9.3, and PATCH of RFC 5789.
constexpr std::array<std::string_view, 9> kMethods = {
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"};

// "{id}": a name in braces stands for one segment, whatever it is.
bool is_capture(std::string_view segment) {
  return segment.starts_with('{');
}

// Cuts the segment behind the '/' at the front off a path.
std::string_view cut_segment(std::string_view& path) {
  path.remove_prefix(1);
  const auto end = std::min(path.find('/'), path.size());
  const std::string_view segment = path.substr(0, end);
  path.remove_prefix(end);
  return segment;
}

// "GET, HEAD, OPTIONS": what `methods` makes possible.
std::string allow(const std::vector<std::string_view>& methods) {
  std::string list;
  for (const std::string_view method : methods) {
    if (list.find(method) != std::string::npos) continue;
    list.append(method).append(", ");
    if (method == "GET") list += "HEAD, ";
  }
  return list + "OPTIONS";
}

}  // namespace

void Router::add(std::string method, std::string pattern, std::string about, Action action,
                 Body body) {
  Route route{
      {std::move(method), std::move(pattern), std::move(about)}, {}, std::move(action), body};
  for (std::string_view rest = route.line.pattern; !rest.empty();) {
    route.segments.emplace_back(cut_segment(rest));
  }
  routes_.push_back(std::move(route));
}

bool Router::matches(const Route& route, std::string_view path) {
  for (const std::string& segment : route.segments) {
    if (path.empty()) return false;
    const std::string_view given = cut_segment(path);
    // A capture is never empty: "/jobs/" is not "/jobs/{id}".
    if (is_capture(segment) ? given.empty() : segment != given) return false;
  }
  return path.empty();
}

void Router::handle(const Request& request, Answer& answer) {
  const bool head = request.method == "HEAD";
  const bool everything = request.path == "*";
  std::vector<std::string_view> methods;
  for (const Route& route : routes_) {
    if (!everything && !matches(route, request.path)) continue;
    if (!everything &&
        (request.method == route.line.method || (head && route.line.method == "GET"))) {
      return act(route, request, answer);
    }
    methods.push_back(route.line.method);
  }
  if (std::find(kMethods.begin(), kMethods.end(), request.method) == kMethods.end()) {
    return answer.send(text(501, "an unknown method"));
  }
  if (methods.empty() && !everything) return answer.send(text(404, "there is nothing here"));
  const bool asks = request.method == "OPTIONS";
  Response response = asks ? Response{204, {}, {}} : text(405, "not a method of this resource");
  response.fields.push_back({"Allow", allow(methods)});
  answer.send(std::move(response));
}

void Router::act(const Route& route, const Request& request, Answer& answer) {
  if (route.body == Body::needed && request.body.empty() &&
      request.field("Content-Length").data() == nullptr &&
      request.field("Transfer-Encoding").data() == nullptr) {
    return answer.send(text(411, "a body is needed here, and its Content-Length"));
  }
  Captures captures;
  std::string_view path = request.path;
  for (const std::string& segment : route.segments) {
    const std::string_view given = cut_segment(path);
    if (!is_capture(segment)) continue;
    if (!percent_decode(given, captures.emplace_back())) {
      return answer.send(text(400, "bad percent-encoding in the path"));
    }
  }
  route.action(request, captures, answer);
}

std::vector<Router::Line> Router::index() const {
  std::vector<Line> lines;
  for (const Route& route : routes_) lines.push_back(route.line);
  return lines;
}

}  // namespace echolab::patterns
