// Numbers with units, as people type and read them. Each parser takes the whole text and throws
// UsageError, whose one line names `what` (the option), the text and what was expected.
#pragma once

#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace echolab::harness {

// The user asked for something that cannot be meant: main prints the line and exits with 2.
struct UsageError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// "10s", "250ms", "40us", "1.5s", "2m"; a unit must be there. More than zero, at most a day.
std::chrono::nanoseconds parse_duration(std::string_view text, std::string_view what);
// "64", "50k", "1.5M": k is 1000, M is 1000000. Zero or more, at most 1e12.
double parse_rate(std::string_view text, std::string_view what);
// As parse_rate, but whole.
std::uint64_t parse_count(std::string_view text, std::string_view what);
// Bytes: "64", "64B", "4KiB", "1MiB", "1GiB" (powers of 1024), "4kB", "1MB" (powers of 1000).
// Whole.
std::uint64_t parse_size(std::string_view text, std::string_view what);

// "5%" or "5", as a share: 0.05. Zero or more, at most 1000 %.
double parse_percent(std::string_view text, std::string_view what);

// "42": any number of 64 bits, not negative.
std::uint64_t parse_seed(std::string_view text, std::string_view what);

std::string format_duration(std::chrono::nanoseconds);  // "250 ms", "1.5 s", "2m05s"
std::string format_count(double);                       // "950", "12.3k", "1.23M"
std::string format_size(std::uint64_t bytes);           // "64 B", "4 KiB", "1.5 MiB"

}  // namespace echolab::harness
