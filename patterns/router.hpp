// Which handler answers which method and path. Filled once at the start, then read by all threads.
//
// Knows what every resource allows: 405 with Allow for another method, OPTIONS answered with it,
// HEAD wherever there is GET, 404 for a path that nobody serves, 501 for a method that is not of
// HTTP (RFC 9110, 9.1 and 15.5.6).
//
// A request with neither Content-Length nor Transfer-Encoding has no body (RFC 9112, 6.3), which is
// nothing wrong with it: many a POST needs none. So it is not the connection that answers 411 but
// the resource that is nothing without a body (RFC 9110, 15.5.12): a client that forgot to say how
// long its message is must not publish an empty one.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "patterns/http.hpp"

namespace echolab::patterns {

// What stood in the place of each {name} of the pattern, percent-decoded.
using Captures = std::vector<std::string>;

class Router final : public Handler {
 public:
  using Action = std::function<void(const Request&, const Captures&, Answer&)>;
  // "GET", "/jobs/{id}". The first of several that fit a path serves it. `about` is the line for
  // the index at "GET /".
  enum class Body : bool { optional, needed };  // needed: without any length 411; it may be empty
  void add(std::string method, std::string pattern, std::string about, Action action,
           Body body = Body::optional);
  void handle(const Request&, Answer&) override;

  struct Line {
    std::string method, pattern, about;
  };
  [[nodiscard]] std::vector<Line> index() const;

 private:
  struct Route {
    Line line;
    std::vector<std::string> segments;
    Action action;
    Body body;
  };
  static bool matches(const Route& route, std::string_view path);
  static void act(const Route& route, const Request& request, Answer& answer);

  std::vector<Route> routes_;
};

}  // namespace echolab::patterns
