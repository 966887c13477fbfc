// GET /work: a handler that does what handlers should not, so that it can be felt: ?cpu=20us keeps
// the processor busy, ?block=1ms sleeps. On a loop everybody waits for it; on a thread of its own
// nobody does.
#pragma once

#include "patterns/router.hpp"

namespace echolab::patterns {

struct WorkLimits {
  Duration longest = std::chrono::seconds(1);  // of either; more: 400
};

void add_work_routes(Router&, const WorkLimits&);

}  // namespace echolab::patterns
