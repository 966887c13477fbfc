#include "harness/progress.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "harness/output.hpp"
#include "harness/units.hpp"

namespace echolab::harness {
namespace {

// Often enough to look alive, seldom enough to cost the measured machine nothing.
constexpr std::chrono::milliseconds kRedraw{250};
constexpr std::size_t kDefaultWidth = 80;  // columns, where the terminal does not say
constexpr double kPaceShare = 0.01;        // of the work must be done before a pace means anything

std::size_t terminal_width() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kDefaultWidth;
  return size.ws_col;
}

}  // namespace

Progress Progress::on_stderr() {
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  const bool dumb = term != nullptr && std::string(term) == "dumb";
  const bool terminal = ::isatty(STDERR_FILENO) == 1 && !dumb;
  return {terminal, terminal && (no_color == nullptr || *no_color == '\0')};
}

Progress Progress::silent() {
  Progress progress(false, false);
  progress.silent_ = true;
  return progress;
}

void Progress::say(const std::string& line) {
  if (silent_) return;
  clear();
  tell(line + "\n");
}

void Progress::step(const std::string& what, double done, double total) {
  if (silent_) return;
  if (terminal_) return draw(what, done, total);
  tell(fmt::format("[{:3.0f} %{}] {}\n", std::floor(100 * done / total), remaining(done, total),
                   what));
}

void Progress::update(const std::string& what, double done, double total) {
  if (!terminal_ || Clock::now() - last_drawn_ < kRedraw) return;
  draw(what, done, total);
}

void Progress::clear() {
  if (!drawn_) return;
  tell("\r\x1b[K");
  drawn_ = false;
}

std::string Progress::remaining(double done, double total) const {
  if (done < kPaceShare * total || done >= total) return "";
  const std::chrono::duration<double> spent = Clock::now() - started_;
  const std::chrono::seconds left(
      std::max<long>(1, std::lround(spent.count() * (total - done) / done)));
  return ", " + format_duration(left) + " left";
}

void Progress::draw(const std::string& what, double done, double total) {
  std::string line =
      fmt::format("{:3.0f} %{}  {}", std::floor(100 * done / total), remaining(done, total), what);
  line.resize(std::min(line.size(), terminal_width() - 1));
  const char* dim = colour_ ? "\x1b[2m" : "";
  const char* plain = colour_ ? "\x1b[0m" : "";
  tell(fmt::format("\r\x1b[K{}{}{}", dim, line, plain));
  drawn_ = true;
  last_drawn_ = Clock::now();
}

}  // namespace echolab::harness
