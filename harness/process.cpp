#include "harness/process.hpp"

#include <arpa/inet.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <condition_variable>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "harness/child.hpp"

namespace echolab::harness {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kStderrKept = 8 * 1024;  // bytes; the last lines, for an error message
constexpr std::size_t kStdoutKept = 4 * 1024;  // bytes; the port is in the first line
constexpr Millis kPollStep{1};                 // between looks at a file or table
constexpr Millis kLook{50};                    // how soon an interrupt of a start is seen
constexpr Millis kDestructorGrace{500};        // nobody waits for the counters any more
constexpr Millis kKillPatience{5'000};         // a killed process may be in a page fault
constexpr Millis kListTimeout{10'000};         // for `--list`, which probes the kernel

// The sockets that listen on a TCP port, by inode, from the kernel's tables. Linux lists those that
// listen before all others (net/ipv4/tcp_ipv4.c), of which a benchmark leaves ten thousands in
// TIME_WAIT: to read them takes longer than a server to start, on the CPU on which it starts.
std::vector<std::uint64_t> listeners(std::uint16_t port) {
  std::vector<std::uint64_t> inodes;
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream text(table);
    std::string line;
    std::getline(text, line);  // a heading
    while (std::getline(text, line)) {
      unsigned local = 0;
      unsigned state = 0;
      unsigned long inode = 0;
      constexpr unsigned kListen = 0x0A;  // TCP_LISTEN
      if (std::sscanf(line.c_str(), "%*u: %*[0-9A-Fa-f]:%x %*s %x %*s %*s %*s %*u %*u %lu", &local,
                      &state, &inode) != 3) {
        continue;
      }
      if (state != kListen) break;
      if (local == port) inodes.push_back(inode);
    }
  }
  return inodes;
}

class TemporaryFolder {
 public:
  TemporaryFolder() {
    path_ = (fs::temp_directory_path() / "echolab-XXXXXX").native();
    if (::mkdtemp(path_.data()) == nullptr) throw_errno(path_.c_str());
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace

// The reader thread takes what the server writes, so that a talkative server never blocks on a full
// pipe; it sleeps otherwise. It shares stdout_ and stderr_ with the owner.
struct Server::Impl {
  std::string name;
  bool own = false;
  std::optional<TemporaryFolder> folder;  // own servers: where the counters are written
  std::uint64_t snapshot = 0;             // the last one read
  Child child;
  std::uint16_t port = 0;
  std::optional<Accounting> accounting;
  std::optional<Ending> ending;
  std::optional<std::string> death;

  Descriptor quit;
  std::thread reader;
  std::mutex mutex;
  std::condition_variable heard;
  std::string out;  // the first bytes only
  std::string err;  // the last bytes only
  bool reading = true;

  Impl(std::string n, bool is_own) : name(std::move(n)), own(is_own) {
    if (own) folder.emplace();
  }
  ~Impl() {
    if (child.pid > 0) finish(kDestructorGrace);
  }

  void start(const std::vector<std::string>& argv, const Cpus& cpus) {
    quit = Descriptor(::eventfd(0, EFD_CLOEXEC));
    if (!quit) throw_errno("eventfd");
    child = launch(name, argv, cpus, own);
    accounting.emplace(child.pid);
    reader = std::thread([this] { read_streams(); });
  }

  void read_streams() {
    pollfd polls[] = {{child.out.get(), POLLIN, 0},
                      {child.err.get(), POLLIN, 0},
                      {child.pidfd.get(), POLLIN, 0},
                      {quit.get(), POLLIN, 0}};
    bool go_on = true;
    while (go_on) {
      if (::poll(polls, 4, -1) < 0 && errno != EINTR) break;
      // Looked at before the streams are read: what it wrote before it ended is then all taken.
      go_on = polls[2].revents == 0 && polls[3].revents == 0;
      const std::lock_guard lock(mutex);
      if (polls[0].fd >= 0 && !drain(child.out, out)) polls[0].fd = -1;
      if (polls[1].fd >= 0 && !drain(child.err, err)) polls[1].fd = -1;
      if (out.size() > kStdoutKept) out.resize(kStdoutKept);
      if (err.size() > kStderrKept) err.erase(0, err.size() - kStderrKept);
      heard.notify_all();
    }
    const std::lock_guard lock(mutex);
    reading = false;
    heard.notify_all();
  }

  void stop_reading() {
    if (!reader.joinable()) return;
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(quit.get(), &one, sizeof one);
    reader.join();
  }

  std::string with_stderr(std::string line) {
    const std::lock_guard lock(mutex);
    const std::string last = last_line(err);
    return last.empty() ? line : line + ": " + last;
  }

  // Takes the ended process, and what is left of its group and descendants, out of the system.
  void finish(Millis grace) {
    if (ending) return;
    const bool was_dead = ended(child.pidfd);
    accounting->refresh();
    std::vector<Descriptor> descendants;  // as pidfds, which cannot come to mean somebody else
    for (const pid_t pid : accounting->processes()) {
      if (pid != child.pid) descendants.push_back(open_pidfd(pid));
    }
    ::kill(-child.pid, SIGTERM);
    const bool in_time = ended(child.pidfd, grace);
    // The group id is ours until its first process is reaped, so no stranger can be hit.
    ::kill(-child.pid, SIGKILL);
    for (const Descriptor& one : descendants) {
      if (one) send_signal(one, SIGKILL);
    }
    for (const Descriptor& one : descendants) {
      if (one) ended(one, kKillPatience);
    }
    stop_reading();
    Ending result = reap(child.pid);
    result.forced = !in_time;
    if (own) result.stats = read_stats_file().value_or(nullptr);
    if (result.stats.is_object() && !result.stats.value("final", false)) result.stats = nullptr;
    if (was_dead) death = with_stderr(fmt::format("{}: the server ended: {}", name, result.line));
    ending = std::move(result);
  }

  bool has_died() {
    if (!ending && ended(child.pidfd)) finish(Millis(0));
    return death.has_value();
  }

  [[noreturn]] void throw_not_started() {
    finish(Millis(0));
    using Kind = ServerError::Kind;
    Kind kind = Kind::start;
    if (own && ending->exit_status == 2) kind = Kind::usage;
    if (own && ending->exit_status == 3) kind = Kind::unavailable;
    const std::string last = [&] {
      const std::lock_guard lock(mutex);
      return last_line(err);
    }();
    if (kind != Kind::start && !last.empty()) throw ServerError(kind, name + ": " + last);
    throw ServerError(kind, with_stderr(fmt::format("{}: the server ended before it listened: {}",
                                                    name, ending->line)));
  }

  void check_interrupt(const StartOptions& options) const {
    if (!options.interrupted || !options.interrupted()) return;
    throw ServerError(ServerError::Kind::interrupted,
                      fmt::format("{}: interrupted before the server listened", name));
  }

  void await_port_line(const StartOptions& options) {
    const Millis timeout = options.timeout;
    const auto deadline = Clock::now() + timeout;
    std::string line;
    {
      std::unique_lock lock(mutex);
      const auto enough = [this] { return out.find('\n') != std::string::npos || !reading; };
      while (!enough() && Clock::now() < deadline) {
        heard.wait_until(lock, std::min(deadline, Clock::now() + kLook), enough);
        check_interrupt(options);
      }
      const std::size_t end = out.find('\n');
      if (end != std::string::npos) {
        line = out.substr(0, end);
      } else if (!reading) {
        lock.unlock();
        throw_not_started();
      }
    }
    if (line.empty()) {
      throw ServerError(ServerError::Kind::start,
                        with_stderr(fmt::format("{}: the server did not say its port within {} ms",
                                                name, timeout.count())));
    }
    const auto [stop, error] = std::from_chars(line.data(), line.data() + line.size(), port);
    if (error != std::errc() || stop != line.data() + line.size() || port == 0) {
      throw ServerError(ServerError::Kind::start,
                        fmt::format("{}: the server's first line is not a port: {}", name, line));
    }
  }

  void await_listening(const StartOptions& options) {
    const Millis timeout = options.timeout;
    const auto deadline = Clock::now() + timeout;
    bool foreign = false;
    while (Clock::now() < deadline) {
      if (ended(child.pidfd)) throw_not_started();
      check_interrupt(options);
      const std::vector<std::uint64_t> sockets = listeners(port);
      if (!sockets.empty()) {
        accounting->refresh();
        for (const std::uint64_t inode : sockets) {
          if (accounting->owns_socket(inode)) return;
        }
        foreign = true;
      }
      std::this_thread::sleep_for(kPollStep);
    }
    throw ServerError(
        ServerError::Kind::start,
        with_stderr(foreign ? fmt::format("{}: port {} is served by a process that the command did "
                                          "not start, so its CPU time cannot be counted; run the "
                                          "server in the foreground",
                                          name, port)
                            : fmt::format("{}: the server did not listen on port {} within {} ms",
                                          name, port, timeout.count())));
  }

  [[nodiscard]] std::string stats_path() const { return folder->path() + "/stats.json"; }

  // Nothing if there is no file yet. The server renames a finished file into place.
  std::optional<nlohmann::json> read_stats_file() {
    const auto text = read_text(stats_path());
    if (!text) return std::nullopt;
    nlohmann::json stats = nlohmann::json::parse(*text, nullptr, false);
    if (!stats.is_object() || stats.value("schema", "") != "echolab.stats" ||
        stats.value("version", 0) != 1 || !stats["snapshot"].is_number_unsigned()) {
      return std::nullopt;
    }
    return stats;
  }
};

Pinned::~Pinned() {
  try {
    pin_this_thread(before_);
  } catch (const std::system_error&) {
    // Those CPUs are gone; the thread runs where it can.
  }
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {
}
Server::Server(Server&&) noexcept = default;
Server& Server::operator=(Server&&) noexcept = default;
Server::~Server() = default;

Server Server::start_own(const std::string& program, const std::string& spec,
                         const StartOptions& options) {
  auto impl = std::make_unique<Impl>(spec, true);
  impl->start({program, "--backend", spec, "--listen", "127.0.0.1:0", "--threads",
               std::to_string(options.threads), "--stats-json", impl->stats_path()},
              options.cpus);
  impl->await_port_line(options);
  impl->accounting->refresh();
  return Server(std::move(impl));
}

Server Server::start_foreign(const std::string& name, const std::string& command,
                             const StartOptions& options) {
  constexpr std::string_view kPlace = "{port}";
  if (command.find(kPlace) == std::string::npos) {
    throw ServerError(ServerError::Kind::usage,
                      fmt::format("{}: the command has no {{port}}: {}", name, command));
  }
  auto impl = std::make_unique<Impl>(name, false);
  impl->port = free_port();
  std::string line = "exec " + command;
  const std::string port = std::to_string(impl->port);
  for (std::size_t at = 0; (at = line.find(kPlace, at)) != std::string::npos; at += port.size()) {
    line.replace(at, kPlace.size(), port);
  }
  impl->start({"/bin/sh", "-c", line}, options.cpus);
  impl->await_listening(options);
  return Server(std::move(impl));
}

Server Server::start_control(const std::string& name, const std::string& program,
                             const StartOptions& options) {
  auto impl = std::make_unique<Impl>(name, false);
  impl->port = free_port();
  impl->start({program, std::to_string(impl->port)}, options.cpus);
  impl->await_listening(options);
  return Server(std::move(impl));
}

const std::string& Server::name() const {
  return impl_->name;
}
bool Server::own() const {
  return impl_->own;
}
pid_t Server::pid() const {
  return impl_->child.pid;
}
std::uint16_t Server::port() const {
  return impl_->port;
}
Cpus Server::cpus() const {
  return affinity_of(impl_->child.pid);
}
Accounting& Server::accounting() {
  return *impl_->accounting;
}

std::optional<std::string> Server::death() {
  impl_->has_died();
  return impl_->death;
}

nlohmann::json Server::stats(Millis timeout) {
  if (!impl_->own) throw std::logic_error("stats() asked of a server that is not ours");
  if (impl_->ending && !impl_->death) throw std::logic_error("stats() asked of a stopped server");
  const auto deadline = Clock::now() + timeout;
  if (!impl_->has_died()) send_signal(impl_->child.pidfd, SIGUSR1);
  do {
    if (impl_->has_died()) throw ServerError(ServerError::Kind::died, *impl_->death);
    if (auto stats = impl_->read_stats_file()) {
      const auto number = (*stats)["snapshot"].get<std::uint64_t>();
      if (number > impl_->snapshot) {
        impl_->snapshot = number;
        return std::move(*stats);
      }
    }
    std::this_thread::sleep_for(kPollStep);
  } while (Clock::now() < deadline);
  throw ServerError(
      ServerError::Kind::stats,
      impl_->with_stderr(fmt::format("{}: the server did not write its counters within {} ms",
                                     impl_->name, timeout.count())));
}

Ending Server::stop(Millis grace) {
  impl_->finish(grace);
  return *impl_->ending;
}

std::string Server::last_stderr_line() const {
  const std::lock_guard lock(impl_->mutex);
  return last_line(impl_->err);
}

std::string sibling_program(const std::string& name) {
  return (fs::read_symlink("/proc/self/exe").parent_path() / name).native();
}

nlohmann::json catalogue(const std::string& program) {
  const Output output = run_program({program, "--list", "--json"}, kListTimeout);
  const auto fail = [&](std::string line) {
    const std::string last = last_line(output.err);
    if (!last.empty()) line += ": " + last;
    throw ServerError(ServerError::Kind::start, line);
  };
  if (output.timed_out) fail(program + " --list did not end in time");
  if (output.exit_status != 0) {
    fail(fmt::format("{} --list failed with exit status {}", program, output.exit_status));
  }
  nlohmann::json list = nlohmann::json::parse(output.out, nullptr, false);
  bool right = list.is_object() && list.value("schema", "") == "echolab.catalogue" &&
               list.value("version", 0) == 1 && list["variants"].is_array();
  for (const char* field : {"name", "why", "unavailable"}) {
    for (const nlohmann::json& variant : right ? list["variants"] : nlohmann::json::array()) {
      right = right && variant.is_object() && variant.contains(field) && variant[field].is_string();
    }
  }
  if (!right) fail(program + " --list says something else than version 1 of echolab.catalogue");
  return list;
}

std::uint16_t free_port() {
  const Descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  if (!socket || ::bind(socket.get(), generic, length) != 0 ||
      ::getsockname(socket.get(), generic, &length) != 0) {
    throw_errno("cannot find a free port");
  }
  return ntohs(address.sin_port);
}

}  // namespace echolab::harness
