// A program started by a test, and how an echo-server is used.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "tests/world.hpp"

namespace echolab::test {

// Where the programs under test are: ECHOLAB_BIN_DIR, or the build folder of this test.
std::string program(const std::string& name);

// A file that is gone when the test is.
class TemporaryFile {
 public:
  TemporaryFile();
  ~TemporaryFile();
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string text() const;

 private:
  std::string path_;
};

// A child process. It is killed, if it still runs, and reaped by the destructor.
class Program {
 public:
  explicit Program(const std::vector<std::string>& arguments);  // the first names the program
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  // These wait, for kPatience at most, and throw std::runtime_error.
  std::string read_line();  // of stdout, without the newline
  int wait();               // reads all output; the exit code, or minus the signal that ended it
  void signal(int number) const;
  [[nodiscard]] pid_t pid() const { return pid_; }
  // What it has printed beyond the lines already read; complete after wait().
  [[nodiscard]] const std::string& out() const { return out_; }
  [[nodiscard]] const std::string& err() const { return err_; }

 private:
  bool read_more(Time until);  // false: both ends are closed

  pid_t pid_ = -1;
  int out_fd_ = -1;
  int err_fd_ = -1;
  std::string out_;
  std::string err_;
};

// A whole run of one of our programs.
struct Outcome {
  int code = 0;
  std::string out;
  std::string err;
};
Outcome run(const std::string& name, std::vector<std::string> arguments);
bool one_line(const std::string& text);

// A client of a server at 127.0.0.1 or ::1. Null: refused.
std::unique_ptr<Peer> connect_tcp(const std::string& host, std::uint16_t port, PeerOptions = {});

}  // namespace echolab::test
