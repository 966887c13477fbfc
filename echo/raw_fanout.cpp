// raw-fanout PORT: the control of the fan-out. What one client sends goes to all of them, itself
// included, by one send(2) each and nothing else: what a server costs beyond this is its own doing.
// It ends when a client does, or by a signal.

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "echo/raw_listener.hpp"

namespace {

constexpr int kEvents = 64;             // of one epoll_wait
constexpr std::size_t kInput = 4096;    // bytes; a message is far shorter and comes in one piece
constexpr std::uint32_t kListener = 0;  // as epoll data; no client has this descriptor

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
  serve(raw_listener("raw-fanout", argc, argv, SOCK_NONBLOCK));
}
