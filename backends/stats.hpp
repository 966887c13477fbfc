// What a backend counts about itself. A counter with one writer costs a plain add; any thread may
// read it at any time.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace echolab {

// Kinds in the order in which they are reported. The sys_ kinds are system calls, counted where
// they are made (for libuv: where its documented behaviour makes them); the rest are events.
#define ECHOLAB_COUNTERS(X)                                                   \
  X(sys_wait)      /* epoll_wait, poll */                                     \
  X(sys_enter)     /* io_uring_enter */                                       \
  X(sys_recv)      /* recv, read */                                           \
  X(sys_send)      /* send, sendmsg, write */                                 \
  X(sys_accept)    /* accept4 */                                              \
  X(sys_epoll_ctl) /* epoll_ctl */                                            \
  X(sys_sockopt)   /* setsockopt on a connection */                           \
  X(sys_shutdown)  /* shutdown */                                             \
  X(sys_close)     /* close */                                                \
  X(sys_wake)      /* eventfd write or read */                                \
  X(op_recv)       /* io_uring recv completions */                            \
  X(op_send)       /* io_uring send completions */                            \
  X(wakeups)       /* returns from a wait, or blocking calls that returned */ \
  X(events)        /* readiness events or completions handled */              \
  X(accepted)      /* connections accepted */                                 \
  X(refused)       /* connections closed at once: a limit was reached */      \
  X(closed)        /* connections ended */                                    \
  X(inputs)        /* on_bytes calls */                                       \
  X(bytes_in)      /* bytes received and given to sessions */                 \
  X(bytes_out)     /* bytes sent */                                           \
  X(bytes_copied)  /* bytes copied in user space on their way out */          \
  X(eagain)        /* a call that found nothing to do */                      \
  X(enobufs)       /* a receive that found no provided buffer */              \
  X(short_sends)   /* a send that took less than it was given */              \
  X(rearms)        /* multishot operations started again */                   \
  X(pauses)        /* reading stopped at the high-water mark */               \
  X(posts)         /* posts delivered */                                      \
  X(posts_stale)   /* posts to connections that had ended */                  \
  X(deadlines)     /* on_deadline calls */                                    \
  X(calls)         /* on_reply calls */                                       \
  X(calls_failed)  /* of these: with an error */                              \
  X(calls_reused)  /* of these: over a connection that was used before */     \
  X(overflows)     /* connections closed over the outbox limit */             \
  X(cq_overflows)  /* completions that found the io_uring queue full */       \
  X(pool_jobs)     /* jobs run by the libuv threadpool */

enum class Count : std::uint8_t {
#define X(name) name,
  ECHOLAB_COUNTERS(X)
#undef X
};
inline constexpr std::size_t kCounts = 0
#define X(name) +1
    ECHOLAB_COUNTERS(X)
#undef X
    ;
const char* name_of(Count);

// Events per wait-up: bucket i counts waits that returned [2^i, 2^(i+1)) events, the last the rest.
inline constexpr std::size_t kBatchBuckets = 12;

class Counters {
 public:
  void add(Count c, std::uint64_t n = 1) noexcept {
    auto& v = values_[static_cast<std::size_t>(c)];
    v.store(v.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  // A connection that is refused at a limit: counted, and told to who wants to know.
  void refuse() noexcept {
    add(Count::refused);
    if (on_refused) on_refused();
  }
  std::function<void()> on_refused;  // Options::on_refused; set before any thread counts
  // For a counter that several threads write, all of them in this way.
  void add_shared(Count c) noexcept {
    values_[static_cast<std::size_t>(c)].fetch_add(1, std::memory_order_relaxed);
  }
  void batch(std::size_t events) noexcept {
    add(Count::wakeups);
    add(Count::events, events);
    if (events == 0) return;
    std::size_t i = static_cast<std::size_t>(std::bit_width(events)) - 1;
    if (i >= kBatchBuckets) i = kBatchBuckets - 1;
    batches_[i].store(batches_[i].load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }
  // What another thread has counted and will not count on.
  void add(const Counters& other) noexcept {
    for (std::size_t i = 0; i < kCounts; ++i) {
      if (const auto n = other.get(static_cast<Count>(i)); n > 0) add(static_cast<Count>(i), n);
    }
  }
  [[nodiscard]] std::uint64_t get(Count c) const noexcept {
    return values_[static_cast<std::size_t>(c)].load(std::memory_order_relaxed);
  }

 private:
  friend struct Stats;
  std::array<std::atomic<std::uint64_t>, kCounts> values_{};
  std::array<std::atomic<std::uint64_t>, kBatchBuckets> batches_{};
};

// A kernel or library feature: what the variant asked for, and what it got.
struct Feature {
  std::string name;
  bool asked = false;
  bool granted = false;
  std::string note;  // why not, or how much
};

struct Stats {
  std::array<std::uint64_t, kCounts> counts{};
  std::array<std::uint64_t, kBatchBuckets> batches{};
  std::vector<Feature> features;

  [[nodiscard]] std::uint64_t get(Count c) const { return counts[static_cast<std::size_t>(c)]; }
  void add(const Counters&);
};

}  // namespace echolab
