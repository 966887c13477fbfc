#include "tests/program.hpp"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <system_error>
#include <thread>

extern char** environ;

namespace echolab::test {

std::string program(const std::string& name) {
  const char* folder = std::getenv("ECHOLAB_BIN_DIR");
  return std::string(folder != nullptr ? folder : ECHOLAB_BIN_DIR) + "/" + name;
}

TemporaryFile::TemporaryFile() {
  path_ = (std::filesystem::temp_directory_path() / "echolab-test-XXXXXX").string();
  const int fd = mkstemp(path_.data());
  if (fd < 0) throw std::system_error(errno, std::system_category(), "mkstemp " + path_);
  ::close(fd);
}

TemporaryFile::~TemporaryFile() {
  std::error_code ignored;
  std::filesystem::remove(path_, ignored);
}

std::string TemporaryFile::text() const {
  std::ostringstream all;
  all << std::ifstream(path_).rdbuf();
  return all.str();
}

Program::Program(const std::vector<std::string>& arguments) {
  std::array<int, 2> out{};
  std::array<int, 2> err{};
  if (pipe2(out.data(), O_CLOEXEC) != 0 || pipe2(err.data(), O_CLOEXEC) != 0) {
    throw std::system_error(errno, std::system_category(), "pipe2");
  }
  out_fd_ = out[0];
  err_fd_ = err[0];
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err[1], STDERR_FILENO);
  // A test may ignore SIGPIPE; the program starts as from a shell.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t defaults;
  sigemptyset(&defaults);
  sigaddset(&defaults, SIGPIPE);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
  std::vector<char*> argv;
  for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  const int rc = posix_spawnp(&pid_, argv[0], &actions, &attributes, argv.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  ::close(out[1]);
  ::close(err[1]);
  if (rc != 0) {
    pid_ = -1;
    ::close(out_fd_);
    ::close(err_fd_);
    throw std::system_error(rc, std::system_category(), "cannot start " + arguments[0]);
  }
}

Program::~Program() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  if (out_fd_ >= 0) ::close(out_fd_);
  if (err_fd_ >= 0) ::close(err_fd_);
}

bool Program::read_more(Time until) {
  std::array<pollfd, 2> fds{{{out_fd_, POLLIN, 0}, {err_fd_, POLLIN, 0}}};
  if (out_fd_ < 0 && err_fd_ < 0) return false;
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
  if (left.count() <= 0 || ::poll(fds.data(), 2, static_cast<int>(left.count())) == 0) {
    throw std::runtime_error("the program is silent; so far: " + out_ + err_);
  }
  const auto take = [](const pollfd& p, int& fd, std::string& into) {
    if (p.revents == 0) return;
    std::array<char, 4096> buffer{};
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n > 0) {
      into.append(buffer.data(), static_cast<std::size_t>(n));
    } else if (n == 0 || errno != EINTR) {
      ::close(fd);
      fd = -1;
    }
  };
  take(fds[0], out_fd_, out_);
  take(fds[1], err_fd_, err_);
  return true;
}

std::string Program::read_line() {
  const Time until = std::chrono::steady_clock::now() + kPatience;
  std::size_t end = 0;
  while ((end = out_.find('\n')) == std::string::npos) {
    if (!read_more(until)) throw std::runtime_error("the program ended without a line: " + err_);
  }
  std::string line = out_.substr(0, end);
  out_.erase(0, end + 1);
  return line;
}

int Program::wait() {
  const Time until = std::chrono::steady_clock::now() + kPatience;
  while (read_more(until)) {
  }
  for (;;) {
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = -1;
      return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    }
    if (std::chrono::steady_clock::now() > until) throw std::runtime_error("the program goes on");
    std::this_thread::sleep_for(1ms);
  }
}

void Program::signal(int number) const {
  if (::kill(pid_, number) != 0) throw std::system_error(errno, std::system_category(), "kill");
}

Outcome run(const std::string& name, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), program(name));
  Program p(arguments);
  const int code = p.wait();
  return {code, p.out(), p.err()};
}

bool one_line(const std::string& text) {
  return std::count(text.begin(), text.end(), '\n') == 1 && text.back() == '\n';
}

}  // namespace echolab::test
