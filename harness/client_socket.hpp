// A client's sockets: addresses, non-blocking connects, and the limits that stand in the way.
#pragma once

#include <string_view>

#include "harness/files.hpp"
#include "harness/load.hpp"

namespace echolab::harness {

// Throws LoadError (limit) if the kernel has not enough local ports for so many connections to one
// address and port.
void require_local_ports(unsigned connections);
// Raises the soft limit of descriptors to the hard one. Throws LoadError (limit) if `connections`
// to one server cannot be open at a time: descriptors or local ports.
void allow_connections(unsigned connections);

// How our sends are paced: not at all. A system default such as BBR costs CPU for its model of a
// path that does not exist on loopback. Reno is in every kernel and open to every user. The servers
// keep the system's default, which is a part of what they cost.
inline constexpr std::string_view kClientCongestionControl = "reno";

// A non-blocking TCP socket with TCP_NODELAY whose connect has begun; it is writable once it has
// ended. `number` (from 1) and `total` are for the error line. Throws LoadError (connect, limit).
Descriptor begin_connect(const Endpoint&, unsigned number, unsigned total);

// What a connect, or a connection, ended with; 0 for no error.
int socket_error(int fd);

// The line for a connect that failed with `error`.
LoadError connect_error(const Endpoint&, unsigned number, unsigned total, int error);

}  // namespace echolab::harness
