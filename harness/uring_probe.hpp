// io_uring as this kernel offers it to this process, found by asking the kernel itself
// (io_uring_setup(2), io_uring_register(2)): the instrument links no io_uring library.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace echolab::harness {

// Names are the kernel's, in lower case and without their prefix: IORING_FEAT_FAST_POLL is
// "fast_poll". What is newer than this program's tables is counted, not named.
struct UringProbe {
  bool available = false;
  std::string why_not;                // one line if not available
  std::vector<std::string> features;  // IORING_FEAT_*
  std::uint32_t unknown_feature_bits = 0;
  std::vector<std::string> opcodes;        // IORING_OP_* that the kernel supports
  unsigned unknown_opcodes = 0;            // supported, but without a name here
  std::vector<std::string> setup_flags;    // IORING_SETUP_* that matter to a server, if granted
  std::vector<std::string> registrations;  // "buffer_ring", "buffer_ring_incremental", "napi"
};
UringProbe probe_io_uring();

// { "available", "why_not": null or the line, "disabled_sysctl": 0..2 or null, "features",
//   "unknown_feature_bits", "opcodes", "unknown_opcodes", "setup_flags", "registrations" }
nlohmann::json to_json(const UringProbe&);

}  // namespace echolab::harness
