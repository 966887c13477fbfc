// raw-epoll PORT: the control for the epoll backend. The smallest correct edge-triggered echo loop,
// with no interface, no timers, no counters and no drain: what those cost is the difference.
//
// It serves until it is killed. A peer that does not read its replies blocks its own connection
// only: what the socket does not take is kept, and reading stops until it is gone.

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <unordered_map>
#include <vector>

#include "echo/raw_listener.hpp"

namespace {

std::array<char, 64 * 1024> buffer;
std::unordered_map<int, std::vector<char>> unsent;  // only of connections that wait

// Echoes what is there. False: the connection is over. After a hang-up no edge will follow, so that
// a short read no longer ends the turn.
bool serve(int fd, bool hangup) {
  for (;;) {
    if (const auto waiting = unsent.find(fd); waiting != unsent.end()) {
      std::vector<char>& rest = waiting->second;
      const ssize_t n = send(fd, rest.data(), rest.size(), MSG_NOSIGNAL);
      if (n < 0) return errno == EAGAIN;
      rest.erase(rest.begin(), rest.begin() + n);
      if (!rest.empty()) return true;
      unsent.erase(waiting);
    }
    const ssize_t n = recv(fd, buffer.data(), buffer.size(), 0);
    if (n < 0) return errno == EAGAIN;
    if (n == 0) return false;
    const ssize_t sent = send(fd, buffer.data(), static_cast<std::size_t>(n), MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) return false;
    if (sent < n) unsent[fd].assign(buffer.data() + (sent < 0 ? 0 : sent), buffer.data() + n);
    if (sent == n && static_cast<std::size_t>(n) < buffer.size() && !hangup) return true;
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int listener = raw_listener("raw-epoll", argc, argv, SOCK_NONBLOCK);
  const int poller = epoll_create1(0);
  epoll_event event{EPOLLIN, {.fd = listener}};
  epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);

  std::array<epoll_event, 512> events;
  for (;;) {
    const int n = epoll_wait(poller, events.data(), static_cast<int>(events.size()), -1);
    for (int i = 0; i < n; ++i) {
      const epoll_event& e = events[static_cast<std::size_t>(i)];
      if (e.data.fd != listener) {
        if (!serve(e.data.fd, (e.events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0)) {
          unsent.erase(e.data.fd);
          close(e.data.fd);
        }
        continue;
      }
      for (int c = 0; (c = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK)) >= 0;) {
        epoll_event add{EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, {.fd = c}};
        epoll_ctl(poller, EPOLL_CTL_ADD, c, &add);
      }
    }
  }
}
