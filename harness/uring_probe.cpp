#include "harness/uring_probe.hpp"

#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <optional>
#include <system_error>

#include "harness/files.hpp"

namespace echolab::harness {
namespace {

constexpr unsigned kEntries = 4;       // the smallest useful ring; nothing is ever submitted to it
constexpr unsigned kProbeSlots = 256;  // an opcode is one byte

// By bit number. The later ones are newer than the headers of common distributions.
constexpr std::array kFeatures = {
    "single_mmap", "nodrop",      "submit_stable",   "rw_cur_pos",   "cur_personality",
    "fast_poll",   "poll_32bits", "sqpoll_nonfixed", "ext_arg",      "native_workers",
    "rsrc_tags",   "cqe_skip",    "linked_file",     "reg_reg_ring", "recvsend_bundle",
    "min_timeout", "rw_attr",     "no_iowait"};

// By opcode number.
constexpr std::array kOpcodes = {"nop",
                                 "readv",
                                 "writev",
                                 "fsync",
                                 "read_fixed",
                                 "write_fixed",
                                 "poll_add",
                                 "poll_remove",
                                 "sync_file_range",
                                 "sendmsg",
                                 "recvmsg",
                                 "timeout",
                                 "timeout_remove",
                                 "accept",
                                 "async_cancel",
                                 "link_timeout",
                                 "connect",
                                 "fallocate",
                                 "openat",
                                 "close",
                                 "files_update",
                                 "statx",
                                 "read",
                                 "write",
                                 "fadvise",
                                 "madvise",
                                 "send",
                                 "recv",
                                 "openat2",
                                 "epoll_ctl",
                                 "splice",
                                 "provide_buffers",
                                 "remove_buffers",
                                 "tee",
                                 "shutdown",
                                 "renameat",
                                 "unlinkat",
                                 "mkdirat",
                                 "symlinkat",
                                 "linkat",
                                 "msg_ring",
                                 "fsetxattr",
                                 "setxattr",
                                 "fgetxattr",
                                 "getxattr",
                                 "socket",
                                 "uring_cmd",
                                 "send_zc",
                                 "sendmsg_zc",
                                 "read_multishot",
                                 "waitid",
                                 "futex_wait",
                                 "futex_wake",
                                 "futex_waitv",
                                 "fixed_fd_install",
                                 "ftruncate",
                                 "bind",
                                 "listen",
                                 "recv_zc",
                                 "epoll_wait",
                                 "readv_fixed",
                                 "writev_fixed",
                                 "pipe"};

// Newer than the headers of some distributions that the rest builds on, so written out here.
constexpr std::uint32_t kSubmitAll = 1U << 7;      // IORING_SETUP_SUBMIT_ALL, Linux 5.18
constexpr std::uint32_t kCoopTaskrun = 1U << 8;    // IORING_SETUP_COOP_TASKRUN, Linux 5.19
constexpr std::uint32_t kSingleIssuer = 1U << 12;  // IORING_SETUP_SINGLE_ISSUER, Linux 6.0
constexpr std::uint32_t kDeferTaskrun = 1U << 13;  // IORING_SETUP_DEFER_TASKRUN, Linux 6.1
constexpr std::uint32_t kNoSqArray = 1U << 16;     // IORING_SETUP_NO_SQARRAY, Linux 6.6
constexpr unsigned kRegisterBufferRing = 22;       // IORING_REGISTER_PBUF_RING, Linux 5.19
constexpr unsigned kUnregisterBufferRing = 23;     // IORING_UNREGISTER_PBUF_RING
constexpr std::uint16_t kIncremental = 2;          // IOU_PBUF_RING_INC, Linux 6.12
constexpr unsigned kRegisterNapi = 27;             // IORING_REGISTER_NAPI, Linux 6.9
constexpr unsigned kUnregisterNapi = 28;           // IORING_UNREGISTER_NAPI

struct BufferRing {  // struct io_uring_buf_reg
  std::uint64_t address;
  std::uint32_t entries;
  std::uint16_t group;
  std::uint16_t flags;
  std::array<std::uint64_t, 3> reserved;
};

struct SetupFlag {
  const char* name;
  std::uint32_t bits;  // with what it requires
};
constexpr std::array kSetupFlags = {SetupFlag{"submit_all", kSubmitAll},
                                    SetupFlag{"coop_taskrun", kCoopTaskrun},
                                    SetupFlag{"single_issuer", kSingleIssuer},
                                    SetupFlag{"defer_taskrun", kSingleIssuer | kDeferTaskrun},
                                    SetupFlag{"sqpoll", IORING_SETUP_SQPOLL},
                                    SetupFlag{"no_sqarray", kNoSqArray}};

Descriptor setup(std::uint32_t flags, io_uring_params& params) {
  params = {};
  params.flags = flags;
  return Descriptor(static_cast<int>(::syscall(SYS_io_uring_setup, kEntries, &params)));
}

int do_register(const Descriptor& ring, unsigned what, void* argument, unsigned count) {
  return static_cast<int>(::syscall(SYS_io_uring_register, ring.get(), what, argument, count));
}

std::optional<int> disabled_sysctl() {
  const auto text = read_text("/proc/sys/kernel/io_uring_disabled");
  if (!text || text->empty() || (*text)[0] < '0' || (*text)[0] > '2') return std::nullopt;
  return (*text)[0] - '0';
}

std::string refusal(int error) {
  const int disabled = disabled_sysctl().value_or(0);
  switch (error) {
    case ENOSYS:
      return "this kernel has no io_uring, or a container's seccomp filter hides it";
    case EPERM:
      if (disabled == 2) return "io_uring is switched off: sysctl kernel.io_uring_disabled is 2";
      if (disabled == 1) {
        return "io_uring is for privileged processes only: sysctl kernel.io_uring_disabled is 1";
      }
      return "io_uring_setup is not permitted: probably a container's seccomp filter";
    case ENOMEM:
      return "no locked memory left for a ring: raise the limit (ulimit -l)";
    default:
      return "io_uring_setup failed: " + std::generic_category().message(error);
  }
}

void probe_opcodes(const Descriptor& ring, UringProbe& probe) {
  constexpr std::size_t kBytes = sizeof(io_uring_probe) + kProbeSlots * sizeof(io_uring_probe_op);
  alignas(io_uring_probe) std::array<std::byte, kBytes> memory{};
  auto* const answer = reinterpret_cast<io_uring_probe*>(memory.data());
  if (do_register(ring, IORING_REGISTER_PROBE, answer, kProbeSlots) < 0) return;
  const auto* const ops =
      reinterpret_cast<const io_uring_probe_op*>(memory.data() + sizeof(io_uring_probe));
  for (unsigned i = 0; i < answer->ops_len; ++i) {
    if ((ops[i].flags & IO_URING_OP_SUPPORTED) == 0) continue;
    if (ops[i].op < kOpcodes.size()) {
      probe.opcodes.emplace_back(kOpcodes[ops[i].op]);
    } else {
      ++probe.unknown_opcodes;
    }
  }
}

bool grants_buffer_ring(const Descriptor& ring, std::uint16_t flags) {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  void* const memory =
      ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  BufferRing wish{reinterpret_cast<std::uintptr_t>(memory), 1, 0, flags, {}};
  const bool granted = do_register(ring, kRegisterBufferRing, &wish, 1) == 0;
  if (granted) {
    BufferRing undo{};
    do_register(ring, kUnregisterBufferRing, &undo, 1);
  }
  ::munmap(memory, page);
  return granted;
}

bool grants_napi(const Descriptor& ring) {
  // struct io_uring_napi: busy poll timeout in us, then preferences; zeros are valid.
  std::array<std::uint64_t, 2> napi{};
  if (do_register(ring, kRegisterNapi, napi.data(), 1) != 0) return false;
  do_register(ring, kUnregisterNapi, napi.data(), 1);
  return true;
}

}  // namespace

UringProbe probe_io_uring() {
  UringProbe probe;
  io_uring_params params{};
  const Descriptor ring = setup(0, params);
  if (!ring) {
    probe.why_not = refusal(errno);
    return probe;
  }
  probe.available = true;
  for (unsigned bit = 0; bit < 32; ++bit) {
    if ((params.features & (1U << bit)) == 0) continue;
    if (bit < kFeatures.size()) {
      probe.features.emplace_back(kFeatures[bit]);
    } else {
      probe.unknown_feature_bits |= 1U << bit;
    }
  }
  probe_opcodes(ring, probe);
  for (const SetupFlag& flag : kSetupFlags) {
    io_uring_params ignored{};
    if (setup(flag.bits, ignored)) probe.setup_flags.emplace_back(flag.name);
  }
  if (grants_buffer_ring(ring, 0)) probe.registrations.emplace_back("buffer_ring");
  if (grants_buffer_ring(ring, kIncremental)) {
    probe.registrations.emplace_back("buffer_ring_incremental");
  }
  if (grants_napi(ring)) probe.registrations.emplace_back("napi");
  return probe;
}

nlohmann::json to_json(const UringProbe& probe) {
  const auto disabled = disabled_sysctl();
  return {{"available", probe.available},
          {"why_not", probe.available ? nlohmann::json() : nlohmann::json(probe.why_not)},
          {"disabled_sysctl", disabled ? nlohmann::json(*disabled) : nlohmann::json()},
          {"features", probe.features},
          {"unknown_feature_bits", probe.unknown_feature_bits},
          {"opcodes", probe.opcodes},
          {"unknown_opcodes", probe.unknown_opcodes},
          {"setup_flags", probe.setup_flags},
          {"registrations", probe.registrations}};
}

}  // namespace echolab::harness
