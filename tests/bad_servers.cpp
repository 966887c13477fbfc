#include "tests/bad_servers.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <system_error>
#include <utility>

namespace echolab::harness {
namespace {

int checked(int result, const char* what) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), what);
  return result;
}

void watch(int epoll, int fd, std::uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  checked(::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
}

}  // namespace

TestServer::TestServer(Behaviour behaviour, std::size_t piece)
    : behaviour_(std::move(behaviour)),
      piece_(piece),
      listener_(
          checked(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket")),
      epoll_(checked(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")),
      stop_(checked(::eventfd(0, EFD_CLOEXEC), "eventfd")),
      received_(std::make_unique<std::atomic<std::uint64_t>[]>(kMostPeers)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  checked(::bind(listener_.get(), generic, length), "bind");
  checked(::listen(listener_.get(), 128), "listen");
  checked(::getsockname(listener_.get(), generic, &length), "getsockname");
  port_ = ntohs(address.sin_port);
  watch(epoll_.get(), listener_.get(), EPOLLIN);
  watch(epoll_.get(), stop_.get(), EPOLLIN);
  thread_ = std::thread([this] { serve(); });
}

TestServer::~TestServer() {
  const std::uint64_t one = 1;
  // An eventfd takes a one unless it is full, which one write cannot make it.
  [[maybe_unused]] const ssize_t n = ::write(stop_.get(), &one, sizeof one);
  thread_.join();
}

std::string TestServer::address() const {
  return "127.0.0.1:" + std::to_string(port_);
}

std::size_t TestServer::beyond(std::uint64_t bytes) const {
  return static_cast<std::size_t>(
      std::count_if(received_.get(), received_.get() + kMostPeers,
                    [&](const std::atomic<std::uint64_t>& n) { return n.load() > bytes; }));
}

void TestServer::serve() {
  std::array<epoll_event, 256> events;
  for (;;) {
    const int n = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
    for (int i = 0; i < n; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      if (event.data.fd == stop_.get()) return;
      if (event.data.fd == listener_.get()) {
        accept_all();
        continue;
      }
      const auto peer = peers_.find(event.data.fd);
      if (peer == peers_.end()) continue;
      const bool alive = flush(peer->second) && receive(peer->second);
      if (!alive) peers_.erase(peer);
    }
  }
}

void TestServer::accept_all() {
  for (;;) {
    Descriptor fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd || accepted_ == kMostPeers) return;
    const int on = 1;
    ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    watch(epoll_.get(), fd.get(), EPOLLIN | EPOLLOUT | EPOLLET);
    const int key = fd.get();
    Peer& peer = peers_[key];
    peer.fd = std::move(fd);
    peer.stream.number = accepted_++;
  }
}

// Reads only while nothing is left to send, so that what a slow client costs is bounded.
bool TestServer::receive(Peer& peer) {
  std::array<char, 65536> buffer;
  while (peer.unsent.empty()) {
    const ssize_t n = ::recv(peer.fd.get(), buffer.data(), buffer.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return true;
    if (n <= 0) return false;
    std::string bytes(buffer.data(), static_cast<std::size_t>(n));
    peer.stream.received += bytes.size();
    received_[peer.stream.number].store(peer.stream.received);
    if (behaviour_) peer.then = behaviour_(peer.stream, bytes);
    peer.unsent = std::move(bytes);
    if (!flush(peer)) return false;
  }
  return true;
}

bool TestServer::flush(Peer& peer) {
  std::size_t sent = 0;
  while (sent < peer.unsent.size()) {
    const std::size_t part = std::min(piece_, peer.unsent.size() - sent);
    const ssize_t n = ::send(peer.fd.get(), peer.unsent.data() + sent, part, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) return false;
    if (n < 0) break;
    sent += static_cast<std::size_t>(n);
  }
  peer.unsent.erase(0, sent);
  if (!peer.unsent.empty() || peer.then == Then::go_on) return true;
  if (peer.then == Then::reset) {
    const linger now{1, 0};  // close() sends RST
    ::setsockopt(peer.fd.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
  }
  return false;
}

}  // namespace echolab::harness
