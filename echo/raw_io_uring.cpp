// raw-io_uring PORT: the control for the io_uring backend. The smallest correct io_uring echo loop,
// with no interface, no timers, no counters and no drain: what those cost is the difference.
//
// It serves until it is killed, with multishot accept and receive, and sends from the provided
// buffer that the kernel received into, one send at a time per connection. About as many buffers
// circulate as a turn needs, the one used last first. A peer that does not read its replies blocks
// its own connection only: its receive is cancelled until it has taken what waits, and when few
// buffers are left, what waits is copied. Linux 6.12.

#include <liburing.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "echo/raw_listener.hpp"

namespace {

constexpr std::size_t kBufferSize = 64 * 1024;    // bytes
constexpr unsigned kBuffers = 256;                // a power of two
constexpr unsigned kConnections = 16 * 1024;      // direct descriptors
constexpr int kCopied = -1;                       // instead of a buffer's number
constexpr double kLeastHot = 2, kMostHot = 64;    // buffers with the kernel
constexpr double kCooling = 64;                   // turns; all as in backends/buffer_ring.hpp
constexpr unsigned kFew = 32;                     // buffers left, from which on replies are copied
constexpr std::size_t kMostWaiting = 256 * 1024;  // bytes, from which on a connection is not read

constexpr unsigned short kIncremental = 2;  // io_uring_register_buf_ring(3), IOU_PBUF_RING_INC
constexpr unsigned kBufferMore = 1U << 4;   // io_uring_enter(2), IORING_CQE_F_BUF_MORE

struct Buffer {
  std::size_t filled = 0;  // bytes
  unsigned replies = 0;    // that are sent from it
  bool retired = false;    // the kernel is done with it
};

struct Reply {
  const char* data;
  std::size_t size;
  int buffer;
  std::vector<char> copy;
};

struct Connection {
  std::deque<Reply> replies;
  std::size_t waiting = 0;  // bytes of them
  bool receiving = false;
  bool cancelling = false;
  bool sending = false;  // the first reply
  bool over = false;     // no more comes in
};

enum class Op : std::uint32_t { accept, receive, send, cancel, close };

io_uring ring;
io_uring_buf_ring* provided;
unsigned with_kernel = 0;  // buffers
double hot = kLeastHot;    // of them in the next turn
bool missed = false;       // a receive has found none, or waits for one still
std::vector<Buffer> buffers(kBuffers);
std::vector<int> unused;   // buffers
std::vector<int> to_send;  // connections that have got a reply in this turn
std::deque<int> starving;  // connections that have found no buffer
std::vector<char> memory(kBuffers* kBufferSize);
std::vector<std::unique_ptr<Connection>> connections;  // by direct descriptor

// An entry to be filled in; its user data are set last.
io_uring_sqe* entry() {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring);
  while (sqe == nullptr) {
    io_uring_submit(&ring);
    sqe = io_uring_get_sqe(&ring);
  }
  return sqe;
}

std::uint64_t tag(Op op, int fd) {
  return std::uint64_t{static_cast<std::uint32_t>(op)} << 32 | static_cast<std::uint32_t>(fd);
}

void accept_from(int listener) {
  io_uring_sqe* sqe = entry();
  io_uring_prep_multishot_accept_direct(sqe, listener, nullptr, nullptr, 0);
  sqe->user_data = tag(Op::accept, listener);
}

void provide(int buffer) {
  io_uring_buf_ring_add(provided, memory.data() + static_cast<std::size_t>(buffer) * kBufferSize,
                        kBufferSize, static_cast<unsigned short>(buffer),
                        io_uring_buf_ring_mask(kBuffers), 0);
  io_uring_buf_ring_advance(provided, 1);
}

void release(int buffer) {
  Buffer& b = buffers[static_cast<std::size_t>(buffer)];
  if (b.replies > 0 || !b.retired) return;
  b = Buffer{};
  unused.push_back(buffer);
}

void receive(int fd, Connection& c) {
  if (c.receiving || c.over || c.waiting >= kMostWaiting) return;
  io_uring_sqe* sqe = entry();
  io_uring_prep_recv_multishot(sqe, fd, nullptr, 0, 0);
  sqe->flags |= IOSQE_BUFFER_SELECT | IOSQE_FIXED_FILE;
  sqe->buf_group = 0;
  sqe->user_data = tag(Op::receive, fd);
  c.receiving = true;
}

// What has already arrived may still complete.
void stop_receiving(int fd, Connection& c) {
  if (!c.receiving || c.cancelling) return;
  io_uring_sqe* sqe = entry();
  io_uring_prep_cancel64(sqe, tag(Op::receive, fd), 0);
  sqe->user_data = tag(Op::cancel, fd);
  c.cancelling = true;
}

void send_first(int fd, Connection& c) {
  if (c.sending || c.replies.empty()) return;
  c.sending = true;
  io_uring_sqe* sqe = entry();
  io_uring_prep_send(sqe, fd, c.replies.front().data, c.replies.front().size, MSG_NOSIGNAL);
  sqe->flags |= IOSQE_FIXED_FILE;
  sqe->user_data = tag(Op::send, fd);
}

// Frees the descriptor when the kernel holds nothing of it.
void close_if_over(int fd, Connection& c) {
  if (!c.over || c.receiving || c.cancelling || c.sending || !c.replies.empty()) return;
  connections[static_cast<std::size_t>(fd)].reset();
  io_uring_sqe* sqe = entry();
  io_uring_prep_close_direct(sqe, static_cast<unsigned>(fd));
  sqe->user_data = tag(Op::close, fd);
}

void pop(Connection& c) {
  const int buffer = c.replies.front().buffer;
  c.replies.pop_front();
  if (buffer == kCopied) return;
  --buffers[static_cast<std::size_t>(buffer)].replies;
  release(buffer);
}

void reply(int fd, Connection& c, int buffer, std::size_t size) {
  Buffer& b = buffers[static_cast<std::size_t>(buffer)];
  const char* data = memory.data() + static_cast<std::size_t>(buffer) * kBufferSize + b.filled;
  b.filled += size;
  c.waiting += size;
  const bool growing = c.replies.size() > (c.sending ? 1 : 0);  // the last is not being sent
  if (growing && c.replies.back().buffer == buffer &&
      c.replies.back().data + c.replies.back().size == data) {
    c.replies.back().size += size;
  } else if (with_kernel + unused.size() > kFew) {
    ++b.replies;
    c.replies.push_back({data, size, buffer, {}});
  } else {
    std::vector<char> copy(data, data + size);
    c.replies.push_back({copy.data(), size, kCopied, std::move(copy)});
  }
  to_send.push_back(fd);
  if (c.waiting >= kMostWaiting) stop_receiving(fd, c);
}

void received(int fd, Connection& c, const io_uring_cqe& cqe) {
  if ((cqe.flags & IORING_CQE_F_MORE) == 0) c.receiving = false;
  if ((cqe.flags & IORING_CQE_F_BUFFER) != 0) {
    const int buffer = static_cast<int>(cqe.flags >> IORING_CQE_BUFFER_SHIFT);
    if (cqe.res > 0) reply(fd, c, buffer, static_cast<std::size_t>(cqe.res));
    if ((cqe.flags & kBufferMore) == 0) {
      buffers[static_cast<std::size_t>(buffer)].retired = true;
      --with_kernel;
      release(buffer);
    }
  }
  if (cqe.res == -ENOBUFS) {
    missed = true;
    return starving.push_back(fd);
  }
  if (cqe.res == 0 || (cqe.res < 0 && cqe.res != -ECANCELED)) c.over = true;
  receive(fd, c);
  close_if_over(fd, c);
}

void sent(int fd, Connection& c, int result) {
  c.sending = false;
  if (result < 0) {
    c.over = true;
    stop_receiving(fd, c);
    while (!c.replies.empty()) pop(c);
    return close_if_over(fd, c);
  }
  const auto n = static_cast<std::size_t>(result);
  Reply& first = c.replies.front();
  first.data += n;
  first.size -= n;
  c.waiting -= n;
  if (first.size == 0) pop(c);
  send_first(fd, c);
  receive(fd, c);
  close_if_over(fd, c);
}

// The sends of a turn, and then buffers for the next.
void end_turn() {
  for (const int fd : to_send) {
    if (Connection* c = connections[static_cast<std::size_t>(fd)].get()) send_first(fd, *c);
  }
  to_send.clear();
  hot = missed ? std::min(2 * hot, kMostHot) : std::max(hot - hot / kCooling, kLeastHot);
  for (; with_kernel < static_cast<unsigned>(hot) && !unused.empty(); ++with_kernel) {
    provide(unused.back());
    unused.pop_back();
  }
  for (unsigned n = with_kernel; n > 0 && !starving.empty(); starving.pop_front()) {
    Connection* c = connections[static_cast<std::size_t>(starving.front())].get();
    if (c == nullptr || c->receiving) continue;
    receive(starving.front(), *c);
    if (c->receiving) --n;
  }
  missed = !starving.empty();
}

void handle(const io_uring_cqe& cqe) {
  const auto op = static_cast<Op>(cqe.user_data >> 32);
  const int fd = static_cast<int>(cqe.user_data & 0xffffffff);
  if (op == Op::close) return;
  if (op == Op::accept) {
    if (cqe.res >= 0) {
      auto& c = connections[static_cast<std::size_t>(cqe.res)];
      c = std::make_unique<Connection>();
      receive(cqe.res, *c);
    }
    if ((cqe.flags & IORING_CQE_F_MORE) == 0) accept_from(fd);
    return;
  }
  Connection& c = *connections[static_cast<std::size_t>(fd)];
  if (op == Op::receive) return received(fd, c, cqe);
  if (op == Op::send) return sent(fd, c, cqe.res);
  c.cancelling = false;
  close_if_over(fd, c);
}

// Returns an error's number when it cannot go on.
int serve(int listener, unsigned slots) {
  io_uring_params params{};
  params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE;
  params.cq_entries = 16384;  // room for every connection to complete at once
  int rc = io_uring_queue_init_params(2048, &ring, &params);
  if (rc < 0) return -rc;
  void* mapped = mmap(nullptr, kBuffers * sizeof(io_uring_buf), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return errno;
  provided = static_cast<io_uring_buf_ring*>(mapped);
  io_uring_buf_reg registration{};
  registration.ring_addr = reinterpret_cast<std::uint64_t>(mapped);
  registration.ring_entries = kBuffers;
  registration.pad = kIncremental;
  rc = io_uring_register_buf_ring(&ring, &registration, 0);
  if (rc < 0) return -rc;
  connections.resize(slots);
  rc = io_uring_register_files_sparse(&ring, slots);
  if (rc < 0) return -rc;
  for (int i = 0; i < static_cast<int>(kBuffers); ++i) unused.push_back(i);
  io_uring_register_ring_fd(&ring);
  accept_from(listener);
  for (;;) {
    end_turn();
    // A receive may find no buffer although nothing has arrived for it: who comes behind it is not
    // to wait for an event.
    rc = starving.empty() ? io_uring_submit_and_wait(&ring, 1)
                          : io_uring_submit_and_get_events(&ring);
    if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY) return -rc;
    unsigned n = 0;
    unsigned head = 0;
    io_uring_cqe* cqe = nullptr;
    io_uring_for_each_cqe(&ring, head, cqe) {
      handle(*cqe);
      ++n;
    }
    io_uring_cq_advance(&ring, n);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int listener = raw_listener("raw-io_uring", argc, argv, 0);
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  errno = serve(listener, static_cast<unsigned>(std::min<rlim_t>(limit.rlim_cur, kConnections)));
  std::perror("raw-io_uring");
  return 1;
}
