// What tests of the load generator have in common.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "harness/load.hpp"
#include "tests/bad_servers.hpp"

namespace echolab::harness {

// For what must happen sometime, on however slow a machine.
inline constexpr Nanos kAmple = std::chrono::seconds(60);
// connect() has every connection echo one byte before the first request.
inline constexpr std::uint64_t kHello = 1;

inline Shape closed(unsigned connections, std::size_t size, unsigned depth) {
  Shape shape;
  shape.connections = connections;
  shape.size = size;
  shape.depth = depth;
  return shape;
}

inline Shape open(unsigned connections, std::size_t size, double rate, Arrivals arrivals) {
  Shape shape = closed(connections, size, kOpenLoopDepth);
  shape.rate = rate;
  shape.arrivals = arrivals;
  return shape;
}

// A load that is connected.
inline std::unique_ptr<Load> connected(const TestServer& server, const Shape& shape) {
  auto load = std::make_unique<Load>(parse_endpoint(server.address()), shape, 42);
  load->set_patience(kAmple);
  load->connect(kAmple);
  return load;
}

// Answers up to `bytes` of a stream as they come and hands the rest to `spoil`.
inline Behaviour after(std::uint64_t bytes, Behaviour spoil) {
  return [=](Stream& stream, std::string& in) {
    if (stream.received <= bytes) return Then::go_on;
    const std::uint64_t before = stream.received - in.size();
    std::string good;
    if (before < bytes) {
      good = in.substr(0, bytes - before);
      in.erase(0, good.size());
    }
    const Then then = spoil(stream, in);
    in.insert(0, good);
    return then;
  };
}

}  // namespace echolab::harness
