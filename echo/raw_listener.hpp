// How every raw control begins: with a port on its command line, as many descriptors as it may
// have, and a listener on 127.0.0.1 whose connections inherit TCP_NODELAY (tcp(7)). What is wrong
// ends the program: 1 cannot listen, 2 usage.
#pragma once

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

// `flags` as in socket(2). The limit of descriptors is what getrlimit(2) says from then on.
inline int raw_listener(const char* name, int argc, char** argv, int flags) {
  constexpr int kBacklog = 4096;  // connections; a thousand clients that come at once fit
  const long port = argc == 2 ? std::strtol(argv[1], nullptr, 10) : 0;
  if (port < 1 || port > 65535) {
    std::fprintf(stderr, "usage: %s PORT (1 to 65535, on 127.0.0.1)\n", name);
    std::exit(2);
  }
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);

  const int listener = socket(AF_INET, SOCK_STREAM | flags, 0);
  const int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0 ||
      listen(listener, kBacklog) < 0) {
    std::perror((std::string(name) + ": cannot listen").c_str());
    std::exit(1);
  }
  return listener;
}
