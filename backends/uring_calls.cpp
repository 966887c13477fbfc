#include "backends/uring_calls.hpp"

#include <poll.h>

#include <algorithm>
#include <utility>

namespace echolab {

void UringCalls::submit(io_uring_sqe* sqe, Op op, Link& l) {
  sqe->user_data = ring_tag(static_cast<std::uint8_t>(op), l.id);
  ++l.in_flight;
}

void UringCalls::connect(Link& l) {
  io_uring_sqe* sqe = ring_.entry();
  io_uring_prep_connect(sqe, l.fd.get(), l.address.get(), l.address.length);
  submit(sqe, Op::connect, l);
  l.connecting = true;
}

// A large request may be answered while it is still being sent: both at once.
void UringCalls::request(Link& l) {
  l.outdated = l.watching;
  if (!l.call.asked.request.empty()) send(l, ring_.silent());
  receive(l);
}

// A silent send is carried out by the call that submits it, without waiting for room.
void UringCalls::send(Link& l, bool silent) {
  io_uring_sqe* sqe = ring_.entry();
  const Bytes rest = Bytes(l.call.asked.request).subspan(l.sent);
  io_uring_prep_send(sqe, l.fd.get(), rest.data(), rest.size(),
                     MSG_NOSIGNAL | MSG_WAITALL | (silent ? MSG_DONTWAIT : 0));
  if (silent) sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
  submit(sqe, Op::send, l);
  l.sending = true;
  l.silent = silent;
}

void UringCalls::receive(Link& l) {
  io_uring_sqe* sqe = ring_.entry();
  io_uring_prep_recv(sqe, l.fd.get(), l.reply.data() + l.received, l.reply.size() - l.received, 0);
  submit(sqe, Op::receive, l);
  l.receiving = true;
}

void UringCalls::watch(Link& l) {
  if (l.watching) return;
  io_uring_sqe* sqe = ring_.entry();
  io_uring_prep_poll_add(sqe, l.fd.get(), POLLIN | POLLRDHUP);
  submit(sqe, Op::watch, l);
  l.watching = true;
}

void UringCalls::completed(const io_uring_cqe& cqe) {
  const auto generation = static_cast<std::uint32_t>(cqe.user_data >> 32);
  Link* found =
      links_.at_tag(static_cast<std::uint32_t>(cqe.user_data), generation, kRingTagGeneration);
  if (found == nullptr) return;
  Link& l = *found;
  --l.in_flight;
  const auto op = static_cast<Op>(cqe.user_data >> 56);
  if (op == Op::connect) l.connecting = false;
  if (op == Op::watch) l.watching = false;
  if (op == Op::receive) {
    counters_.add(Count::op_recv);
    l.receiving = false;
    // Submitted before the receive, so carried out before it: what has not failed has been sent.
    if (l.silent) {
      l.silent = l.sending = false;
      --l.in_flight;
      l.sent = l.call.asked.request.size();
    }
  }
  if (op == Op::send) {
    counters_.add(Count::op_send);
    l.silent = l.sending = false;
    l.sent += static_cast<std::size_t>(std::max(cqe.res, 0));
  }
  if (l.closing) return release(l);

  if (op == Op::watch) {
    // It may have been completed by a reply that is expected, or already had.
    if (std::exchange(l.outdated, false)) return l.busy ? void() : watch(l);
    return l.busy ? void() : drop(l);
  }
  const bool again = (op == Op::receive && cqe.res == -EINTR) ||
                     (op == Op::send && (cqe.res == -EINTR || cqe.res == -EAGAIN));
  if (cqe.res < 0 && !again) return failed(l, error_of(-cqe.res));
  if (op == Op::connect) return request(l);
  if (op == Op::send && l.sent < l.call.asked.request.size()) return send(l, false);
  if (op != Op::receive) return;
  if (cqe.res == 0) return failed(l, std::make_error_code(std::errc::connection_reset));
  l.received += static_cast<std::size_t>(std::max(cqe.res, 0));
  if (!advance(l)) receive(l);
}

// Only when the kernel holds nothing of it: its buffers are what the kernel reads and writes.
void UringCalls::close(Link& l) {
  const std::pair<bool, Op> held[] = {{l.connecting, Op::connect},
                                      {l.sending && !l.silent, Op::send},
                                      {l.receiving, Op::receive},
                                      {l.watching, Op::watch}};
  for (const auto& [is, op] : held) {
    if (!is) continue;
    submit(ring_.cancel(ring_tag(static_cast<std::uint8_t>(op), l.id)), Op::cancel, l);
  }
  release(l);
}

void UringCalls::release(Link& l) {
  if (l.in_flight > 0) return;
  counters_.add(Count::sys_close);
  links_.remove(l.id.slot);
}

}  // namespace echolab
