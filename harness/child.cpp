#include "harness/child.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <memory>
#include <system_error>
#include <utility>

namespace echolab::harness {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kOutputKept = 1024 * 1024;  // bytes of each stream of run_program
constexpr unsigned kReadsAtOnce = 16;             // of 4 KiB: what a pipe holds

// A CPU mask of any size.
class Mask {
 public:
  static constexpr int kCpus = 8192;  // the largest NR_CPUS that Linux can be built with on x86
  Mask() : bits_(CPU_ALLOC(kCpus), [](cpu_set_t* set) { CPU_FREE(set); }) {
    CPU_ZERO_S(bytes(), bits_.get());
  }
  static Mask of(const Cpus& cpus) {
    Mask mask;
    for (const int cpu : cpus) CPU_SET_S(static_cast<std::size_t>(cpu), bytes(), mask.bits_.get());
    return mask;
  }
  static std::size_t bytes() { return CPU_ALLOC_SIZE(kCpus); }
  [[nodiscard]] cpu_set_t* get() const { return bits_.get(); }
  [[nodiscard]] Cpus cpus() const {
    Cpus found;
    for (int cpu = 0; cpu < kCpus; ++cpu) {
      if (CPU_ISSET_S(static_cast<std::size_t>(cpu), bytes(), bits_.get())) found.push_back(cpu);
    }
    return found;
  }

 private:
  std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> bits_;
};

struct Pipe {
  Descriptor read, write;
};
Pipe make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw_errno("pipe2");
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

// What the new process does before it becomes the program: only async-signal-safe calls, because
// other threads of the harness may have held any lock when it was forked.
struct Launch {
  char* const* argv;
  const cpu_set_t* cpus;  // nullptr: as the parent
  int in, out, err, report;
  pid_t parent;

  [[noreturn]] void become() const {
    ::setpgid(0, 0);  // Ctrl-C reaches the harness only, which then stops its servers in order
    // Dies with the harness. If that ended before this call, there is nobody left to signal.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    for (int signal = 1; signal < NSIG; ++signal) ::signal(signal, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    if (cpus != nullptr && ::sched_setaffinity(0, Mask::bytes(), cpus) != 0) fail('a');
    if (::dup2(in, 0) < 0 || ::dup2(out, 1) < 0 || ::dup2(err, 2) < 0) fail('d');
    ::execvp(argv[0], argv);
    fail('x');
  }

 private:
  [[noreturn]] void fail(char stage) const {
    const int code = errno;
    char message[1 + sizeof code];
    message[0] = stage;
    std::memcpy(message + 1, &code, sizeof code);
    [[maybe_unused]] const ssize_t n = ::write(report, message, sizeof message);
    ::_exit(127);
  }
};

std::string how_it_ended(int status) {
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    return fmt::format("killed by signal {} ({})", signal, ::strsignal(signal));
  }
  return fmt::format("exit status {}", WEXITSTATUS(status));
}

std::uint64_t nanos(const timeval& t) {
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(t.tv_usec) * 1'000;
}

}  // namespace

[[noreturn]] void throw_errno(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

Cpus affinity_of(pid_t pid) {
  const Mask mask;
  if (::sched_getaffinity(pid, Mask::bytes(), mask.get()) != 0) throw_errno("sched_getaffinity");
  return mask.cpus();
}

Descriptor open_pidfd(pid_t pid) {
  return Descriptor(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
}

void send_signal(const Descriptor& pidfd, int signal) {
  ::syscall(SYS_pidfd_send_signal, pidfd.get(), signal, nullptr, 0);
}

bool ended(const Descriptor& pidfd, Millis wait) {
  pollfd poll{pidfd.get(), POLLIN, 0};
  const auto deadline = Clock::now() + wait;
  for (;;) {
    const auto left = std::chrono::ceil<Millis>(deadline - Clock::now());
    const int n = ::poll(&poll, 1, static_cast<int>(std::max(left, Millis(0)).count()));
    if (n > 0) return true;
    if (n == 0 || errno != EINTR) return false;
  }
}

Child launch(const std::string& name, const std::vector<std::string>& arguments, const Cpus& cpus,
             bool keep_stdout) {
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const Mask mask = Mask::of(cpus);
  const Descriptor null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) throw_errno("/dev/null");
  Pipe out = keep_stdout ? make_pipe() : Pipe{};
  Pipe err = make_pipe();
  Pipe report = make_pipe();  // closed by a successful exec

  const Launch work{argv.data(),     cpus.empty() ? nullptr : mask.get(),
                    null.get(),      keep_stdout ? out.write.get() : null.get(),
                    err.write.get(), report.write.get(),
                    ::getpid()};
  Child child;
  child.pid = ::fork();
  if (child.pid < 0) throw_errno("fork");
  if (child.pid == 0) work.become();
  child.pidfd = open_pidfd(child.pid);
  const int pidfd_error = errno;
  report.write.reset();
  char message[1 + sizeof(int)];
  ssize_t n = 0;
  do {
    n = ::read(report.read.get(), message, sizeof message);
  } while (n < 0 && errno == EINTR);
  if (n == static_cast<ssize_t>(sizeof message) || !child.pidfd) {
    ::kill(child.pid, SIGKILL);
    ::waitpid(child.pid, nullptr, 0);
    if (n != static_cast<ssize_t>(sizeof message)) {
      throw std::system_error(pidfd_error, std::generic_category(), "pidfd_open");
    }
    int code = 0;
    std::memcpy(&code, message + 1, sizeof code);
    const std::string why = std::generic_category().message(code);
    throw ServerError(ServerError::Kind::start,
                      message[0] == 'a'
                          ? fmt::format("{}: cannot run on CPUs {}: {}", name, cpu_list(cpus), why)
                          : fmt::format("{}: cannot run {}: {}", name, arguments[0], why));
  }
  for (Descriptor* end : {&out.read, &err.read}) {
    if (*end) ::fcntl(end->get(), F_SETFL, O_NONBLOCK);
  }
  child.out = std::move(out.read);
  child.err = std::move(err.read);
  return child;
}

Ending reap(pid_t pid) {
  int status = 0;
  rusage used{};
  while (::wait4(pid, &status, 0, &used) < 0) {
    if (errno != EINTR) throw_errno("wait4");
  }
  Ending ending;
  ending.line = how_it_ended(status);
  ending.exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  ending.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  ending.user_ns = nanos(used.ru_utime);
  ending.system_ns = nanos(used.ru_stime);
  ending.max_rss_bytes = static_cast<std::uint64_t>(used.ru_maxrss) * 1024;
  ending.minor_faults = static_cast<std::uint64_t>(used.ru_minflt);
  ending.major_faults = static_cast<std::uint64_t>(used.ru_majflt);
  ending.voluntary_switches = static_cast<std::uint64_t>(used.ru_nvcsw);
  ending.involuntary_switches = static_cast<std::uint64_t>(used.ru_nivcsw);
  return ending;
}

bool drain(const Descriptor& fd, std::string& text) {
  char chunk[4096];
  for (unsigned i = 0; i < kReadsAtOnce; ++i) {
    const ssize_t n = ::read(fd.get(), chunk, sizeof chunk);
    if (n > 0) {
      text.append(chunk, static_cast<std::size_t>(n));
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
      return false;
    } else if (errno == EAGAIN) {
      return true;
    }
  }
  return true;
}

std::string last_line(std::string_view text) {
  const std::size_t end = text.find_last_not_of(" \t\r\n");
  if (end == std::string_view::npos) return {};
  text = text.substr(0, end + 1);
  return std::string(text.substr(text.rfind('\n') + 1));  // npos + 1 is 0
}

Cpus allowed_cpus() {
  return affinity_of(0);
}

void pin_this_thread(const Cpus& cpus) {
  const Mask mask = Mask::of(cpus);
  if (::sched_setaffinity(0, Mask::bytes(), mask.get()) != 0) throw_errno("sched_setaffinity");
}

std::string cpu_list(const Cpus& cpus) {
  std::string text;
  for (std::size_t i = 0; i < cpus.size();) {
    std::size_t last = i;
    while (last + 1 < cpus.size() && cpus[last + 1] == cpus[last] + 1) ++last;
    if (!text.empty()) text += ',';
    text += std::to_string(cpus[i]);
    if (last > i) text += '-' + std::to_string(cpus[last]);
    i = last + 1;
  }
  return text;
}

Output run_program(const std::vector<std::string>& argv, Millis timeout) {
  Child child = launch(argv.at(0), argv, {}, true);
  Output output;
  const auto deadline = Clock::now() + timeout;
  pollfd polls[] = {
      {child.out.get(), POLLIN, 0}, {child.err.get(), POLLIN, 0}, {child.pidfd.get(), POLLIN, 0}};
  bool running = true;
  while (running && !output.timed_out) {
    const auto left = std::chrono::ceil<Millis>(deadline - Clock::now());
    output.timed_out = left.count() <= 0;
    ::poll(polls, 3, static_cast<int>(std::max(left, Millis(0)).count()));
    running = polls[2].revents == 0;
    if (polls[0].fd >= 0 && !drain(child.out, output.out)) polls[0].fd = -1;
    if (polls[1].fd >= 0 && !drain(child.err, output.err)) polls[1].fd = -1;
    if (output.out.size() > kOutputKept) output.out.resize(kOutputKept);
    if (output.err.size() > kOutputKept) output.err.resize(kOutputKept);
  }
  ::kill(-child.pid, SIGKILL);
  output.exit_status = reap(child.pid).exit_status;
  return output;
}

}  // namespace echolab::harness
