// The servers of the patterns' benchmark: pattern-server over each backend, and what it is compared
// with.
#pragma once

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "harness/pattern_record.hpp"
#include "harness/process.hpp"

namespace echolab::harness {

inline constexpr const char* kNginx = "nginx";
inline constexpr const char* kControl = "raw-fanout";

// Heartbeats are put off: what is measured lies between two of them.
Server start_pattern_server(const std::string& backend, const Cpus& cpus);
Server start_raw_fanout(const Cpus& cpus);

// A folder that goes with this object.
class ScratchFolder {
 public:
  ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  ~ScratchFolder();
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};
// One worker, one constant answer: `return 200` with the body of /plaintext.
Server start_nginx(const ScratchFolder&, const Cpus& cpus);

// CPU that the server has used when it has come to rest: the same for a while, or patience ends.
std::uint64_t cpu_at_rest(Server&);

// What a client sends to wait on a topic: by "sse", "websocket" or "long_poll".
std::string waiting_request(const std::string& kind, const std::string& topic);
// The bytes that one topic's message has on the wire.
std::string sse_bytes(const std::string& id, const std::string& data);
std::string websocket_bytes(const std::string& id, const std::string& topic,
                            const std::string& data);

}  // namespace echolab::harness
