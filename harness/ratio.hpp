// Divisions that may have nothing to divide by.
#pragma once

#include <cstdint>
#include <optional>

namespace echolab::harness {

inline double as_double(std::uint64_t value) {
  return static_cast<double>(value);
}

// Absent unless `under` is above zero.
inline std::optional<double> ratio(double over, double under) {
  if (!(under > 0)) return std::nullopt;
  return over / under;
}

}  // namespace echolab::harness
