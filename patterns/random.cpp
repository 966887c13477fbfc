#include "patterns/random.hpp"

#include <fmt/format.h>
#include <openssl/rand.h>

#include <array>
#include <stdexcept>

namespace echolab::patterns {

RandomSource system_random() {
  return [](Input bytes) {
    auto* first = reinterpret_cast<unsigned char*>(bytes.data());
    if (RAND_bytes(first, static_cast<int>(bytes.size())) != 1) {
      throw std::runtime_error("RAND_bytes: no random bytes to be had");
    }
  };
}

std::string random_id(const RandomSource& random) {
  std::array<std::byte, 16> bytes;
  random(bytes);
  std::string id;
  for (const std::byte b : bytes) id += fmt::format("{:02x}", std::to_integer<unsigned>(b));
  return id;
}

}  // namespace echolab::patterns
