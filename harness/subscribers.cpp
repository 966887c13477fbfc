#include "harness/subscribers.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <thread>

#include "harness/client_socket.hpp"
#include "harness/load.hpp"

namespace echolab::harness {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kInput = 4096;            // bytes of one recv
constexpr unsigned kConnecting = 128;           // at a time: the shortest usual accept queue
constexpr int kEvents = 256;                    // of one epoll_wait
constexpr std::chrono::microseconds kNap{500};  // between two looks at who has been told
constexpr int kLookMs = 50;                     // how soon an interrupt is seen while connecting

Endpoint loopback(std::uint16_t port) {
  return parse_endpoint(fmt::format("127.0.0.1:{}", port));
}

[[noreturn]] void fail(const std::string& line) {
  throw PatternError(line);
}

void check_interrupt() {
  if (Load::interrupted()) throw LoadError(LoadError::Kind::interrupted, "interrupted");
}

}  // namespace

// ---- Asker -------------------------------------------------------------------------------------

Asker::Asker(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int on = 1;
  ::setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    fail(fmt::format("cannot connect: {}", std::strerror(errno)));
  }
}

void Asker::send(std::string_view bytes) {
  if (::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(bytes.size())) {
    fail(fmt::format("cannot send: {}", std::strerror(errno)));
  }
}

// Never sleeps, so that who answers does not pay for waking this thread.
void Asker::more(std::string& text) {
  const auto deadline = Clock::now() + kPatience;
  for (;;) {
    std::array<char, kInput> input{};
    const ssize_t n = ::recv(fd_.get(), input.data(), input.size(), MSG_DONTWAIT);
    if (n > 0) {
      text.append(input.data(), static_cast<std::size_t>(n));
      return;
    }
    if (n == 0) fail("the connection ended in the middle of an answer");
    if (errno != EAGAIN && errno != EINTR) {
      fail(fmt::format("no answer: {}", std::strerror(errno)));
    }
    check_interrupt();
    if (Clock::now() > deadline) fail("no answer in time");
    ::sched_yield();
  }
}

std::string Asker::ask(std::string_view request) {
  send(request);
  std::string answer;
  constexpr std::string_view kLength = "Content-Length: ";
  for (;;) {
    const auto head = answer.find("\r\n\r\n");
    if (head != std::string::npos) {
      const auto length = answer.find(kLength);
      if (length > head) fail("an answer without Content-Length");
      const auto size = std::stoul(answer.substr(length + kLength.size()));
      if (answer.size() >= head + 4 + size) return answer;
    }
    more(answer);
  }
}

std::string Asker::receive(std::size_t bytes) {
  std::string text;
  while (text.size() < bytes) more(text);
  return text;
}

std::string body_of(std::string_view answer) {
  if (!answer.starts_with("HTTP/1.1 200 ")) {
    fail(fmt::format("not 200 but '{}'", answer.substr(0, answer.find('\r'))));
  }
  return std::string(answer.substr(answer.find("\r\n\r\n") + 4));
}

// ---- Subscribers -------------------------------------------------------------------------------

Subscribers::Subscribers(std::uint16_t port, unsigned count, const std::string& request,
                         const Ready& ready)
    : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
  const Endpoint endpoint = loopback(port);
  clients_.resize(count);
  unsigned begun = 0;
  unsigned done = 0;
  const auto deadline = Clock::now() + kPatience + std::chrono::milliseconds(count);
  const auto check = [&](Client& client) {
    if (!client.ready && ready(client.received)) {
      client.ready = true;
      ++done;
    }
  };
  while (done < count) {
    check_interrupt();
    for (; begun < count && begun - done < kConnecting; ++begun) {
      Client& client = clients_[begun];
      client.fd = begin_connect(endpoint, begun + 1, count);
      const linger reset{1, 0};
      ::setsockopt(client.fd.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
      // On loopback a connect has ended when the call returns, unless the accept queue is full:
      // then this waits with the handshake.
      epoll_event event{};
      event.events = EPOLLOUT;
      event.data.u32 = begun;
      if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, client.fd.get(), &event) != 0) {
        fail(fmt::format("epoll_ctl: {}", std::strerror(errno)));
      }
    }
    std::array<epoll_event, kEvents> events{};
    const int n = ::epoll_wait(epoll_.get(), events.data(), kEvents, kLookMs);
    for (int i = 0; i < n; ++i) {
      epoll_event event = events[static_cast<std::size_t>(i)];
      Client& client = clients_[event.data.u32];
      if ((event.events & EPOLLOUT) != 0) {
        if (const int error = socket_error(client.fd.get()); error != 0) {
          throw connect_error(endpoint, event.data.u32 + 1, count, error);
        }
        if (!request.empty() && ::send(client.fd.get(), request.data(), request.size(),
                                       MSG_NOSIGNAL) != static_cast<ssize_t>(request.size())) {
          fail("a subscriber cannot send its request");
        }
        event.events = EPOLLIN;
        ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, client.fd.get(), &event);
        check(client);
      } else {
        std::array<char, kInput> input{};
        const ssize_t got = ::recv(client.fd.get(), input.data(), input.size(), 0);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
          fail(fmt::format("a subscriber was cut off; {} of {} are there", done, count));
        }
        if (got < 0) continue;
        client.received.append(input.data(), static_cast<std::size_t>(got));
        check(client);
      }
    }
    if (Clock::now() > deadline) fail(fmt::format("{} of {} subscribers got in", done, count));
  }
  for (Client& client : clients_) client.received.clear();
}

Subscribers::~Subscribers() = default;

void Subscribers::expect(std::string_view message) {
  const auto deadline = Clock::now() + kPatience;
  // All that have something to read are told at once, and nothing is read before that.
  std::vector<epoll_event> events(clients_.size());
  const auto told = [&] {
    const int n = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0);
    return static_cast<std::size_t>(std::max(n, 0));
  };
  for (std::size_t n = told(); n < clients_.size(); n = told()) {
    check_interrupt();
    if (Clock::now() > deadline) {
      fail(fmt::format("{} of {} subscribers got the message", n, clients_.size()));
    }
    std::this_thread::sleep_for(kNap);
  }
  std::string input(message.size() + 1, '\0');
  for (const Client& client : clients_) {
    const ssize_t got = ::recv(client.fd.get(), input.data(), input.size(), MSG_DONTWAIT);
    if (got <= 0) fail("a subscriber was cut off");
    if (input.substr(0, static_cast<std::size_t>(got)) != message) {
      fail("a subscriber got other bytes than were published");
    }
  }
}

}  // namespace echolab::harness
