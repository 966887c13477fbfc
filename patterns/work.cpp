// The one protocol file that calls a clock and sleeps: that is what it is for.
#include "patterns/work.hpp"

#include <thread>

#include "patterns/durations.hpp"

namespace echolab::patterns {
namespace {

// False: there, but wrong.
bool duration_parameter(const Request& request, const char* name, Duration most, Duration& value) {
  std::string word;
  if (!request.parameter(name, word)) return true;
  const std::optional<Duration> asked = parse_duration(word, most);
  if (asked) value = *asked;
  return asked.has_value();
}

}  // namespace

void add_work_routes(Router& router, const WorkLimits& limits) {
  router.add(
      "GET", "/work", "?cpu=20us burns processor time, ?block=1ms blocks the handler",
      [limits](const Request& request, const Captures&, Answer& answer) {
        Duration cpu{};
        Duration block{};
        if (!duration_parameter(request, "cpu", limits.longest, cpu) ||
            !duration_parameter(request, "block", limits.longest, block)) {
          return answer.send(text(400, "cpu, block: a number of us, ms or s, up to a limit"));
        }
        const Time until = std::chrono::steady_clock::now() + cpu;
        while (std::chrono::steady_clock::now() < until) {
        }
        if (block > Duration::zero()) std::this_thread::sleep_for(block);
        answer.send(text(200, "done"));
      });
}

}  // namespace echolab::patterns
