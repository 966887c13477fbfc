// What a long run says on stderr while it works: one redrawn line on a terminal, a plain line a
// step elsewhere (a log file has no use for a hundred states of one line).
#pragma once

#include <chrono>
#include <string>

namespace echolab::harness {

class Progress {
 public:
  // What stderr is, and what the environment (NO_COLOR, https://no-color.org) asks for.
  static Progress on_stderr();
  static Progress silent();  // for who tells it in another way
  Progress(bool terminal, bool colour) : terminal_(terminal), colour_(colour) {}
  Progress(Progress&&) = default;
  Progress& operator=(Progress&&) = delete;
  ~Progress() { clear(); }

  // A line that stays: a decision, a failure.
  void say(const std::string& line);
  // A step of the work begins; `done` of `total` units lie behind. Elsewhere than on a terminal it
  // is a line of its own.
  void step(const std::string& what, double done, double total);
  // Within a step; redraws at most a few times a second. Nothing elsewhere than on a terminal.
  void update(const std::string& what, double done, double total);
  void clear();

  // The time left at the pace so far; empty while there is no pace yet.
  [[nodiscard]] std::string remaining(double done, double total) const;

 private:
  void draw(const std::string& what, double done, double total);

  using Clock = std::chrono::steady_clock;
  bool terminal_;
  bool colour_;
  bool silent_ = false;
  bool drawn_ = false;
  Clock::time_point started_ = Clock::now();
  Clock::time_point last_drawn_{};
};

}  // namespace echolab::harness
