// Durations as they stand in a query: "20us", "1ms", "2s".
#pragma once

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>

#include "backends/session.hpp"

namespace echolab::patterns {

// A whole number with its unit. Nothing: malformed, or more than `most`.
inline std::optional<Duration> parse_duration(std::string_view text, Duration most) {
  std::uint32_t number = 0;  // 32 bits of seconds do not overflow a Duration
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, number);
  if (error != std::errc{}) return std::nullopt;
  const std::string_view unit(end, static_cast<std::size_t>(last - end));
  Duration value{};
  if (unit == "us") {
    value = std::chrono::microseconds(number);
  } else if (unit == "ms") {
    value = std::chrono::milliseconds(number);
  } else if (unit == "s") {
    value = std::chrono::seconds(number);
  } else {
    return std::nullopt;
  }
  if (value > most) return std::nullopt;
  return value;
}

// The same, rounded up to whole seconds and at least 1: what Retry-After can say (RFC
// 9110, 10.2.3).
inline std::int64_t retry_after(Duration left) {
  return std::max<std::int64_t>(1, std::chrono::ceil<std::chrono::seconds>(left).count());
}

}  // namespace echolab::patterns
