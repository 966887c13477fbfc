// Kernel constants that liburing 2.3 (Debian 12) has no name for. Values from the kernel's
// include/uapi/linux/io_uring.h; each is tried at run time and its refusal handled.
#pragma once

#include <cstdint>

namespace echolab::uring_abi {

// io_uring_buf_reg.flags (liburing 2.3 calls the field `pad`): a receive takes only as much of a
// buffer as it fills, the next goes on behind it. Linux 6.12.
inline constexpr std::uint16_t kBufferRingIncremental = 2;
// cqe->flags: the kernel will use more of this buffer. Linux 6.12.
inline constexpr std::uint32_t kCqeBufferMore = 1U << 4;

}  // namespace echolab::uring_abi
