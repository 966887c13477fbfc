// The rates of an open loop that are given as shares of what the slowest server can do: measured
// first and discarded, so that all contenders get the same absolute rates.
#pragma once

#include "harness/bench.hpp"
#include "harness/process.hpp"

namespace echolab::harness {

// The closed-loop peak of every contender, at depth 1, for each count of connections and size that
// has cells with shares; and the generator's own ceiling, against raw-epoll, if that program lies
// beside this one. Servers that fail here are left out: their cells will say why.
std::vector<Peak> calibrate(const BenchOptions&, const StartOptions&, Progress&);

}  // namespace echolab::harness
