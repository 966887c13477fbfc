#include "backends/ring.hpp"

#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "backends/models.hpp"

namespace echolab {
namespace {

constexpr unsigned kSubmissions = 2048;   // entries; more pending requests are submitted in between
constexpr unsigned kCompletions = 16384;  // entries; room for every connection to complete at once
constexpr unsigned kSqIdleMs = 50;        // the kernel thread spins this long before it sleeps
constexpr unsigned kMaxDirect = 65536;    // direct descriptors; also bounded by RLIMIT_NOFILE
constexpr const char* kTooOld = "the kernel is too old";

// Errors of io_uring_enter(2) after which the same call may succeed.
bool passing(int rc) {
  return rc == -EINTR || rc == -EAGAIN || rc == -EBUSY;
}

}  // namespace

Ring::Ring(const Config& config, Counters& counters) : config_(config), counters_(counters) {
  create();
  set_up_buffers();
  set_up_descriptors();
}

// Tries the best set of flags first. Started disabled, so that the thread that enables it owns it.
void Ring::create() {
  struct Attempt {
    unsigned flags;
    bool single_issuer, defer_taskrun;
  };
  std::vector<Attempt> attempts{{0, false, false}};
  if (config_.tuned) attempts.push_back({IORING_SETUP_SINGLE_ISSUER, true, false});
  if (config_.tuned && !config_.sqpoll) {
    attempts.push_back({IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, true, true});
  }
  int rc = -EINVAL;
  Attempt got{};
  unsigned granted = 0;  // feature bits
  for (; rc == -EINVAL && !attempts.empty(); attempts.pop_back()) {
    got = attempts.back();
    io_uring_params params{};
    params.flags = IORING_SETUP_CQSIZE | IORING_SETUP_R_DISABLED | got.flags |
                   (config_.sqpoll ? IORING_SETUP_SQPOLL : 0);
    params.cq_entries = kCompletions;
    params.sq_thread_idle = kSqIdleMs;
    rc = io_uring_queue_init_params(kSubmissions, &ring_, &params);
    granted = params.features;
  }
  if (rc < 0) throw_errno(-rc, "cannot create an io_uring");
  exit_.reset(&ring_);
  feature("single_issuer", config_.tuned, got.single_issuer, got.single_issuer ? "" : kTooOld);
  feature("defer_taskrun", config_.tuned && !config_.sqpoll, got.defer_taskrun,
          got.defer_taskrun ? "" : kTooOld);
  silent_ = !config_.sqpoll && (granted & IORING_FEAT_CQE_SKIP) != 0;  // Linux 5.17
  feature("cqe_skip", !config_.sqpoll, silent_, silent_ ? "" : kTooOld);
  feature("sqpoll", config_.sqpoll, config_.sqpoll, "a kernel thread uses a CPU of its own");
}

// Multishot receive has no feature bit of its own; it came with SEND_ZC, in Linux 6.0.
void Ring::set_up_buffers() {
  const std::unique_ptr<io_uring_probe, decltype(&io_uring_free_probe)> probe(
      io_uring_get_probe_ring(&ring_), io_uring_free_probe);
  std::string why = kTooOld;
  if (config_.multishot && probe && io_uring_opcode_supported(probe.get(), IORING_OP_SEND_ZC)) {
    try {
      buffers_.emplace(ring_, config_.tuned);
      why.clear();
    } catch (const std::system_error& error) {
      why = error.what();
    }
  }
  feature("multishot", config_.multishot, multishot(), why);
  feature("provided_buffers", config_.multishot, multishot(), why);
  const bool incremental = multishot() && buffers_->incremental();
  feature("incremental_buffers", config_.tuned, incremental, incremental ? "" : kTooOld);
}

void Ring::set_up_descriptors() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  const auto slots = static_cast<unsigned>(std::min<rlim_t>(limit.rlim_cur, kMaxDirect));
  int rc = -EINVAL;
  if (config_.tuned && multishot()) rc = io_uring_register_files_sparse(&ring_, slots);
  if (rc == 0) slots_ = slots;
  feature("direct_descriptors", config_.tuned, direct(),
          direct() ? std::to_string(slots) + " slots" : std::generic_category().message(-rc));
}

void Ring::feature(const char* name, bool asked, bool granted, const std::string& note) {
  features_.push_back({name, asked, granted, asked ? note : ""});
}

void Ring::enable() {
  // liburing 2.3 declares io_uring_enable_rings and does not export it.
  if (syscall(SYS_io_uring_register, ring_.ring_fd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0) < 0) {
    throw_errno(errno, "cannot enable the io_uring");
  }
  if (config_.tuned)
    io_uring_register_ring_fd(&ring_);  // saves a look-up per call; none if refused
}

io_uring_sqe* Ring::entry() {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  while (sqe == nullptr) {
    counters_.add(Count::sys_enter);
    const int rc = io_uring_submit(&ring_);
    if (rc < 0 && !passing(rc)) throw_errno(-rc, "io_uring_enter failed");
    if (config_.sqpoll) io_uring_sqring_wait(&ring_);
    sqe = io_uring_get_sqe(&ring_);
  }
  return sqe;
}

io_uring_sqe* Ring::cancel(std::uint64_t tag) {
  io_uring_sqe* sqe = entry();
  io_uring_prep_cancel64(sqe, tag, 0);
  return sqe;
}

void Ring::prepare_accept(io_uring_sqe* sqe, int listener) const {
  if (direct()) {
    io_uring_prep_multishot_accept_direct(sqe, listener, nullptr, nullptr, 0);
  } else if (multishot()) {
    io_uring_prep_multishot_accept(sqe, listener, nullptr, nullptr, SOCK_CLOEXEC);
  } else {
    io_uring_prep_accept(sqe, listener, nullptr, nullptr, SOCK_CLOEXEC);
  }
}

void Ring::prepare_close(io_uring_sqe* sqe, int fd) const {
  if (direct()) {
    io_uring_prep_close_direct(sqe, static_cast<unsigned>(fd));
  } else {
    io_uring_prep_close(sqe, fd);
  }
}

void Ring::prepare_install(io_uring_sqe* sqe, int fd) {
  // IORING_OP_FIXED_FD_INSTALL, which liburing 2.3 does not name.
  constexpr int kFixedFdInstall = 54;
  io_uring_prep_rw(kFixedFdInstall, sqe, fd, nullptr, 0, 0);
}

bool Ring::wait(Time until) {
  counters_.add(Count::sys_enter);
  int rc = 0;
  // From now, not from the start of the turn, which has taken its time.
  const bool timed = until != kNever && until != Time::min();
  const Duration limit = timed ? until - std::chrono::steady_clock::now() : Duration::zero();
  if (until != kNever && limit <= Duration::zero()) {
    rc = io_uring_submit_and_get_events(&ring_);
  } else if (until == kNever) {
    rc = io_uring_submit_and_wait(&ring_, 1);
  } else {
    const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(limit).count();
    __kernel_timespec timeout{ns / 1'000'000'000, ns % 1'000'000'000};
    io_uring_cqe* ignored = nullptr;
    rc = io_uring_submit_and_wait_timeout(&ring_, &ignored, 1, &timeout, nullptr);
  }
  if (rc < 0 && rc != -ETIME && !passing(rc)) throw_errno(-rc, "io_uring_enter failed");
  const bool overflow = io_uring_cq_has_overflow(&ring_);
  if (overflow) counters_.add(Count::cq_overflows);
  return !overflow && !config_.sqpoll && io_uring_sq_ready(&ring_) == 0;
}

RingWake::RingWake(Counters& counters) : counters_(counters), event_(eventfd(0, EFD_CLOEXEC)) {
  if (!event_) throw_errno(errno, "cannot create an eventfd");
}

void RingWake::arm(Ring& ring, std::uint64_t tag) {
  io_uring_sqe* sqe = ring.entry();
  io_uring_prep_read(sqe, event_.get(), &value_, sizeof value_, 0);
  sqe->user_data = tag;
}

void RingWake::wake() noexcept {
  counters_.add_shared(Count::sys_wake);
  eventfd_write(event_.get(), 1);
}

std::string io_uring_unavailable() {
  io_uring ring{};
  const int rc = io_uring_queue_init(2, &ring, 0);
  if (rc == 0) {
    io_uring_queue_exit(&ring);
    return {};
  }
  if (rc == -ENOSYS) return "this kernel has no io_uring";
  if (rc == -EPERM) {
    return "io_uring is refused: see sysctl kernel.io_uring_disabled and the container's seccomp "
           "profile";
  }
  return "io_uring_setup failed: " + std::generic_category().message(-rc);
}

}  // namespace echolab
