// SCHED_BATCH (sched(7)) for the calling thread and for those that it creates meanwhile: to wake
// such a thread does not preempt whoever runs. Two threads that wake each other on one CPU then
// take turns. The price is paid when other work wants the same CPU: a woken thread waits until that
// has had its slice.
#pragma once

#include <sched.h>

namespace echolab {

class BatchPolicy {
 public:
  // A thread that was given a policy by whoever started it keeps that.
  explicit BatchPolicy(bool wanted)
      : changed_(wanted && sched_getscheduler(0) == SCHED_OTHER && set(SCHED_BATCH)) {}
  BatchPolicy(const BatchPolicy&) = delete;
  BatchPolicy& operator=(const BatchPolicy&) = delete;
  ~BatchPolicy() {
    if (changed_) set(SCHED_OTHER);
  }
  // Whether the calling thread has the policy now, from here or from before.
  static bool in_force() { return sched_getscheduler(0) == SCHED_BATCH; }

 private:
  static bool set(int policy) {
    const sched_param none{};
    return sched_setscheduler(0, policy, &none) == 0;
  }
  const bool changed_;
};

}  // namespace echolab
