// One child process: starting it, watching it by its pidfd, reading its pipes, reaping it. What
// process.hpp is made of; not for others.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "harness/files.hpp"
#include "harness/process.hpp"

namespace echolab::harness {

[[noreturn]] void throw_errno(const char* what);  // std::system_error

struct Child {
  pid_t pid = -1;
  Descriptor pidfd;
  Descriptor out;  // its stdout, not blocking; none if that is discarded
  Descriptor err;
};
// Starts a program (found in PATH) in a process group of its own, with stdin from /dev/null. Empty
// cpus: where this thread may run. It is killed when the calling thread ends. Throws ServerError
// (start), std::system_error.
Child launch(const std::string& name, const std::vector<std::string>& arguments, const Cpus& cpus,
             bool keep_stdout);

// Whether it has ended, waiting for at most `wait`. It need not be our child.
bool ended(const Descriptor& pidfd, Millis wait = Millis(0));
Descriptor open_pidfd(pid_t pid);  // none if there is no such process
void send_signal(const Descriptor& pidfd, int signal);
// Waits for our child, takes it out of the system and says how it ended; `forced` and `stats` are
// not filled in.
Ending reap(pid_t pid);

// Appends what can be read now, at most a pipe's content. False at the end of the stream.
bool drain(const Descriptor& fd, std::string& text);
// Without its newline; empty if there is none.
std::string last_line(std::string_view text);

Cpus affinity_of(pid_t pid);  // as read back from the kernel; 0: this thread

}  // namespace echolab::harness
