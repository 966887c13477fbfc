// Random bytes that nobody can guess, for handles and keys.
#pragma once

#include <functional>
#include <string>

#include "backends/session.hpp"

namespace echolab::patterns {

// Fills its argument. Any thread. Injected, so that a test can say what comes.
using RandomSource = std::function<void(Input)>;

// The CSPRNG of OpenSSL (RAND_bytes). Throws std::runtime_error if the system has no entropy.
RandomSource system_random();

// A handle: 128 bits as 32 hexadecimal digits.
std::string random_id(const RandomSource&);

}  // namespace echolab::patterns
