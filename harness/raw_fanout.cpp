// The control of the fan-out: what one client sends goes to all of them, itself included, by one
// send(2) each and nothing else. What a server costs beyond this is its own doing.
//
// Usage: raw-fanout PORT. Listens on 127.0.0.1, ends by a signal.
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

constexpr int kEvents = 64;             // of one epoll_wait
constexpr std::size_t kInput = 4096;    // bytes; a message is far shorter and comes in one piece
constexpr std::uint32_t kListener = 0;  // as epoll data; no client has this descriptor

void raise_descriptors() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

int listen_on(std::uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(fd, SOMAXCONN) != 0) {
    std::perror("raw-fanout: listen");
    std::exit(1);
  }
  return fd;
}

void watch(int epoll, int fd, std::uint32_t data) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u32 = data;
  ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

[[noreturn]] void serve(int listener) {
  std::vector<int> clients;
  std::array<char, kInput> input{};
  const int epoll = ::epoll_create1(EPOLL_CLOEXEC);
  watch(epoll, listener, kListener);
  for (;;) {
    std::array<epoll_event, kEvents> events{};
    const int n = ::epoll_wait(epoll, events.data(), kEvents, -1);
    for (int i = 0; i < n; ++i) {
      if (events[static_cast<std::size_t>(i)].data.u32 == kListener) {
        for (int fd = 0; (fd = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK)) >= 0;) {
          clients.push_back(fd);
          watch(epoll, fd, static_cast<std::uint32_t>(fd));
        }
        continue;
      }
      const int from = static_cast<int>(events[static_cast<std::size_t>(i)].data.u32);
      const ssize_t size = ::recv(from, input.data(), input.size(), 0);
      if (size <= 0) std::exit(0);  // the measurement is over
      for (const int to : clients) {
        ::send(to, input.data(), static_cast<std::size_t>(size), MSG_NOSIGNAL);
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const long port = argc == 2 ? std::strtol(argv[1], nullptr, 10) : 0;
  if (port < 1 || port > 65535) {
    std::fputs("usage: raw-fanout PORT\n", stderr);
    return 2;
  }
  raise_descriptors();
  serve(listen_on(static_cast<std::uint16_t>(port)));
}
