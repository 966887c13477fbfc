#include "backends/uring_accept.hpp"

#include <poll.h>

namespace echolab {

void UringAccept::submit(io_uring_sqe* sqe, Op op) {
  sqe->user_data = ring_tag(static_cast<std::uint8_t>(op), {});
  ++in_flight_;
}

void UringAccept::arm() {
  if (armed_ || shut_) return;
  armed_ = true;
  io_uring_sqe* sqe = ring_.entry();
  ring_.prepare_accept(sqe, listener_.fd());
  submit(sqe, Op::accept);
}

std::optional<int> UringAccept::completed(const io_uring_cqe& cqe, std::size_t open) {
  const auto op = static_cast<Op>(cqe.user_data >> 56);
  const bool last = (cqe.flags & IORING_CQE_F_MORE) == 0;
  if (last) --in_flight_;
  if (op == Op::cancel || op == Op::close) return {};
  if (last) armed_ = false;
  if (shut_) {
    if (op != Op::accept || cqe.res < 0) return {};
    io_uring_sqe* sqe = ring_.entry();
    ring_.prepare_close(sqe, cqe.res);
    submit(sqe, Op::close);
    return {};
  }
  std::optional<int> taken;
  if (op == Op::crowd) {
    taken = at_limit();
  } else if (op == Op::accept && cqe.res >= 0) {
    taken = cqe.res;
    if (!ring_.direct()) taken = afford(cqe.res);
  } else if (cqe.res == -EMFILE || cqe.res == -ENFILE) {
    if (ring_.direct() && open >= ring_.slots()) {
      counters_.refuse();  // no slot is free: it was taken and closed
    } else {
      io_uring_sqe* sqe = ring_.entry();
      io_uring_prep_poll_add(sqe, listener_.fd(), POLLIN);
      submit(sqe, Op::crowd);
      armed_ = true;
    }
  } else if (cqe.res == -ENOBUFS || cqe.res == -ENOMEM) {
    retry();
  }
  arm();
  return taken;
}

std::optional<int> UringAccept::afford(int descriptor) {
  Fd fd(descriptor);
  if (Listener::afford(fd)) return fd.release();
  counters_.refuse();
  return {};
}

// Somebody is there, and nobody else takes connections from this listener: it does not block.
std::optional<int> UringAccept::at_limit() {
  counters_.add(Count::sys_accept);
  Fd fd = listener_.accept(0);
  if (fd && !ring_.direct()) return fd.release();
  if (fd || errno == EMFILE || errno == ENFILE) {
    counters_.refuse();
  } else if (errno == ENOBUFS || errno == ENOMEM) {
    retry();
  }
  return {};
}

void UringAccept::retry() {
  io_uring_sqe* sqe = ring_.entry();
  io_uring_prep_timeout(sqe, &pause_, 0, 0);
  submit(sqe, Op::retry);
  armed_ = true;
}

void UringAccept::cancel(Op op) {
  submit(ring_.cancel(ring_tag(static_cast<std::uint8_t>(op), {})), Op::cancel);
}

void UringAccept::shut() {
  shut_ = true;
  for (const Op op : {Op::accept, Op::crowd, Op::retry}) cancel(op);
  listener_.shut();  // at once: the ring holds on to it until the accept is gone
  listener_ = Listener();
}

}  // namespace echolab
