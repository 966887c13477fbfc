#include "patterns/gateway.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "patterns/durations.hpp"

namespace echolab::patterns {
namespace {

// As the smallest message of the benchmarks; random, so that another's answer is recognised.
using Question = std::array<std::byte, 64>;
constexpr CallId kCall = 1;  // a request makes one call

class Asking final : public Pending {
 public:
  Asking(const Question& question, Time start) : question_(question), start_(start) {}

  void on_reply(Answer& answer, const Reply& reply) override {
    if (reply.error == std::errc::timed_out) {
      return answer.send(text(504, "the upstream took too long"));
    }
    if (reply.error) {
      return answer.send(text(502, fmt::format("the upstream: {}", reply.error.message())));
    }
    if (!std::equal(reply.bytes.begin(), reply.bytes.end(), question_.begin(), question_.end())) {
      return answer.send(text(502, "the upstream sent other bytes than it was sent"));
    }
    const auto took = std::chrono::duration_cast<std::chrono::microseconds>(answer.now() - start_);
    Response response = json(200, nlohmann::json{{"upstream_us", took.count()}}.dump());
    response.fields.push_back({"Cache-Control", "no-store"});
    answer.send(std::move(response));
  }

 private:
  Question question_;
  Time start_;
};

}  // namespace

void Gateway::add_routes(Router& router) {
  router.add(
      "GET", "/gateway", "ask the upstream, then answer; ?timeout=500ms",
      [this](const Request& request, const Captures&, Answer& answer) { ask(request, answer); });
}

void Gateway::ask(const Request& request, Answer& answer) const {
  Duration timeout = limits_.timeout;
  if (std::string value; request.parameter("timeout", value)) {
    const std::optional<Duration> asked = parse_duration(value, limits_.longest);
    if (!asked) return answer.send(text(400, "timeout: a number of us, ms or s, up to a limit"));
    timeout = *asked;
  }
  if (!upstream_) return answer.send(text(503, "no upstream: start the server with --upstream"));
  Question question;
  random_(question);
  answer.wait(std::make_unique<Asking>(question, answer.now()));
  answer.call(*upstream_, kCall, question, question.size(), timeout);
}

}  // namespace echolab::patterns
