#include "harness/units.hpp"

#include <fmt/core.h>

#include <cctype>
#include <charconv>
#include <cmath>
#include <span>
#include <system_error>

namespace echolab::harness {
namespace {

struct Unit {
  std::string_view suffix;
  double factor;
};

constexpr Unit kDurations[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}};
constexpr Unit kCounts[] = {{"", 1}, {"k", 1e3}, {"K", 1e3}, {"M", 1e6}};
constexpr Unit kSizes[] = {{"", 1},
                           {"B", 1},
                           {"KiB", 1024.0},
                           {"MiB", 1048576.0},
                           {"kB", 1000},
                           {"MB", 1e6},
                           {"K", 1024.0},
                           {"M", 1048576.0},
                           {"GB", 1e9},
                           {"G", 1024.0 * 1048576.0},
                           {"GiB", 1024.0 * 1048576.0}};

constexpr Unit kPercents[] = {{"", 1}, {"%", 1}};

constexpr double kMostPercent = 1000;         // beyond ten times as much a limit judges nothing
constexpr double kLongestDuration = 86400e9;  // ns, a day: nothing here is meant to run longer
constexpr double kLargestCount = 1e12;        // far beyond any rate or count that makes sense
constexpr double kLargestSize = 1e12;         // bytes

double parse(std::string_view text, std::string_view what, std::span<const Unit> units,
             std::string_view expected, double most) {
  const auto fail = [&](std::string_view why) {
    return UsageError(fmt::format("{} '{}': {}", what, text, why));
  };
  double value = 0;
  const char* const end = text.data() + text.size();
  // Digits first: from_chars would also take "-1", "inf" and "nan".
  if (text.empty() || (std::isdigit(static_cast<unsigned char>(text.front())) == 0)) {
    throw fail(fmt::format("expected {}", expected));
  }
  const auto [rest, error] = std::from_chars(text.data(), end, value, std::chars_format::fixed);
  if (error != std::errc()) throw fail(fmt::format("expected {}", expected));
  const std::string_view suffix(rest, static_cast<std::size_t>(end - rest));
  for (const Unit& unit : units) {
    if (unit.suffix != suffix) continue;
    value *= unit.factor;
    if (value > most) throw fail("too large");
    return value;
  }
  throw fail(fmt::format("expected {}", expected));
}

double whole(double value, std::string_view text, std::string_view what) {
  if (value != std::floor(value)) {
    throw UsageError(fmt::format("{} '{}': must be a whole number", what, text));
  }
  return value;
}

// At most three digits that matter and no trailing zeros: "12.3", "950", "4".
std::string short_number(double value) {
  std::string text = fmt::format("{:.{}f}", value, value < 9.995 ? 2 : value < 99.95 ? 1 : 0);
  if (text.find('.') == std::string::npos) return text;
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text;
}

}  // namespace

std::chrono::nanoseconds parse_duration(std::string_view text, std::string_view what) {
  const double ns =
      parse(text, what, kDurations, "a duration such as 10s, 250ms or 2m", kLongestDuration);
  if (ns < 1) throw UsageError(fmt::format("{} '{}': must be more than zero", what, text));
  return std::chrono::nanoseconds(std::llround(ns));
}

double parse_rate(std::string_view text, std::string_view what) {
  return parse(text, what, kCounts, "a number such as 800, 50k or 1.5M", kLargestCount);
}

std::uint64_t parse_count(std::string_view text, std::string_view what) {
  const double n = parse(text, what, kCounts, "a whole number such as 64 or 10k", kLargestCount);
  return static_cast<std::uint64_t>(whole(n, text, what));
}

std::uint64_t parse_size(std::string_view text, std::string_view what) {
  const double n =
      parse(text, what, kSizes, "a size in bytes such as 64, 4KiB or 1MiB", kLargestSize);
  return static_cast<std::uint64_t>(whole(n, text, what));
}

double parse_percent(std::string_view text, std::string_view what) {
  return parse(text, what, kPercents, "a percentage such as 5%", kMostPercent) / 100;
}

std::uint64_t parse_seed(std::string_view text, std::string_view what) {
  std::uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || rest != end) {
    throw UsageError(
        fmt::format("{} '{}': expected a whole number from 0 to 2^64 - 1", what, text));
  }
  return value;
}

std::string format_duration(std::chrono::nanoseconds duration) {
  const double ns = static_cast<double>(duration.count());
  if (ns < 1e3) return fmt::format("{} ns", duration.count());
  if (ns < 999.5e3) return short_number(ns / 1e3) + " us";
  if (ns < 999.5e6) return short_number(ns / 1e6) + " ms";
  if (ns < 99.95e9) return short_number(ns / 1e9) + " s";
  const long long s = std::llround(ns / 1e9);
  return fmt::format("{}m{:02}s", s / 60, s % 60);
}

std::string format_count(double n) {
  if (n < 999.5) return short_number(n);
  if (n < 999.5e3) return short_number(n / 1e3) + "k";
  if (n < 999.5e6) return short_number(n / 1e6) + "M";
  return fmt::format("{:.3g}", n);
}

std::string format_size(std::uint64_t bytes) {
  const double n = static_cast<double>(bytes);
  if (n < 1024) return fmt::format("{} B", bytes);
  if (n < 1048576) return short_number(n / 1024) + " KiB";
  if (n < 1073741824) return short_number(n / 1048576) + " MiB";
  return short_number(n / 1073741824) + " GiB";
}

}  // namespace echolab::harness
