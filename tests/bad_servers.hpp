// TCP servers for tests of the load generator: an echo in one thread of this process whose replies
// a test can spoil, delay or withhold. Plain sockets; nothing of backends/ is used here.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "harness/files.hpp"

namespace echolab::harness {

// One connection, as a behaviour sees it.
struct Stream {
  std::size_t number = 0;      // in order of accepting, from 0
  std::uint64_t received = 0;  // bytes, those of this call included
  std::string held;            // for the behaviour's own use
};

enum class Then { go_on, close, reset };  // after what is to be sent has been sent

// Turns bytes that have arrived (cut anywhere) into bytes to answer. Called in the server's thread;
// it may sleep, which stalls the whole server.
using Behaviour = std::function<Then(Stream&, std::string& bytes)>;

class TestServer {
 public:
  // Listens on a port of 127.0.0.1 that the kernel chooses. `piece`: the most that one send takes.
  explicit TestServer(Behaviour = {}, std::size_t piece = SIZE_MAX);
  ~TestServer();  // closes all and joins
  TestServer(const TestServer&) = delete;
  TestServer& operator=(const TestServer&) = delete;

  [[nodiscard]] std::string address() const;  // "127.0.0.1:4567"
  // Connections that have sent more than `bytes` so far. Any thread.
  [[nodiscard]] std::size_t beyond(std::uint64_t bytes) const;

 private:
  struct Peer {
    Descriptor fd;
    Stream stream;
    std::string unsent;
    Then then = Then::go_on;
  };
  void serve();
  void accept_all();
  bool receive(Peer&);  // false: the connection is over
  bool flush(Peer&);

  static constexpr std::size_t kMostPeers = 16'384;
  Behaviour behaviour_;
  std::size_t piece_;
  std::uint16_t port_ = 0;
  Descriptor listener_;
  Descriptor epoll_;
  Descriptor stop_;
  std::map<int, Peer> peers_;
  std::size_t accepted_ = 0;
  std::unique_ptr<std::atomic<std::uint64_t>[]> received_;  // by Stream::number
  std::thread thread_;
};

}  // namespace echolab::harness
