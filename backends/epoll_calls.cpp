#include "backends/epoll_calls.hpp"

namespace echolab {

void EpollCalls::connect(Link& l) {
  l.connecting = ::connect(l.fd.get(), l.address.get(), l.address.length) < 0;
  if (l.connecting && errno != EINPROGRESS) return failed(l, last_error());
  // Only now: a socket that is not even connecting reports a hang-up.
  epoll_event event{EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                    {.u64 = std::uint64_t{l.id.generation} << 32 | (kFirstSlot + l.id.slot)}};
  counters_.add(Count::sys_epoll_ctl);
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, l.fd.get(), &event) < 0) return failed(l, last_error());
  if (!l.connecting) request(l);
}

void EpollCalls::request(Link& l) {
  send(l);  // the reply will be an edge
}

void EpollCalls::handle(const epoll_event& event) {
  Link* l = links_.find(static_cast<std::uint32_t>(event.data.u64) - kFirstSlot,
                        static_cast<std::uint32_t>(event.data.u64 >> 32));
  if (l == nullptr) return;
  const bool readable = (event.events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
  if (!l->busy) return readable ? drop(*l) : void();
  if (l->connecting) {
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(l->fd.get(), SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) return failed(*l, error_of(error));
    l->connecting = false;
  }
  if (send(*l) && readable) receive(*l);
}

// Sends what the socket takes. False: it failed.
bool EpollCalls::send(Link& l) {
  const std::vector<std::byte>& request = l.call.asked.request;
  while (l.sent < request.size()) {
    counters_.add(Count::sys_send);
    const ssize_t n =
        ::send(l.fd.get(), request.data() + l.sent, request.size() - l.sent, MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) return failed(l, last_error()), false;
      counters_.add(Count::eagain);
      return true;
    }
    l.sent += static_cast<std::size_t>(n);
  }
  return true;
}

void EpollCalls::receive(Link& l) {
  for (;;) {
    counters_.add(Count::sys_recv);
    const ssize_t n =
        ::recv(l.fd.get(), l.reply.data() + l.received, l.reply.size() - l.received, 0);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) return failed(l, last_error());
      counters_.add(Count::eagain);
      return;
    }
    if (n == 0) return failed(l, std::make_error_code(std::errc::connection_reset));
    l.received += static_cast<std::size_t>(n);
    if (advance(l)) return;
  }
}

void EpollCalls::close(Link& l) {
  counters_.add(Count::sys_close);
  links_.remove(l.id.slot);  // the last descriptor of its socket: epoll forgets it too
}

}  // namespace echolab
