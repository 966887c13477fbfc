// The counters of a backend as JSON, schema "echolab.stats" (results/README.md).
#pragma once

#include <string>

#include "backends/backend.hpp"
#include "backends/sockets.hpp"

namespace echolab {

// A regular file, which symbolic links may lead to, is replaced as a whole by each snapshot, so
// that a reader never sees half of one. What is there and is no regular file, such as a FIFO or a
// device, gets one snapshot after the other.
class StatsFile {
 public:
  // Nothing is ever written if the path is empty. Throws std::system_error: a FIFO that nobody
  // reads is an error at once, not a server that hangs.
  StatsFile(std::string path, std::string backend, unsigned threads);

  // Throws std::system_error, which names the file.
  void write(const Backend& backend, bool final);

 private:
  [[noreturn]] void fail(int error) const;
  void put(const Fd& fd, const std::string& text) const;

  const std::string path_;
  const std::string backend_;
  const unsigned threads_;
  std::string target_;     // path_ without symbolic links
  Fd stream_;              // if it is no regular file
  unsigned snapshot_ = 0;  // 0: written at the start
};

}  // namespace echolab
