// What the program says. Results go to stdout, and it matters whether they got there; everything
// else goes to stderr, and nothing depends on whether somebody reads it: a full disk behind a log
// or a closed pager must never cost a measurement.
#pragma once

#include <string_view>

namespace echolab::harness {

// Makes the standard streams safe to write to, before anything else is opened: a closed one is
// opened, so that no file of the run takes its number and gets what is meant for people. Writing to
// a closed pipe or beyond a limit of file sizes becomes an error of the write; servers that are
// started do not inherit that.
void prepare_streams();

// To stderr. What cannot be written is lost.
void tell(std::string_view text) noexcept;

// To stdout, and flushed. False if this or anything before could not be written.
bool show(std::string_view text) noexcept;

}  // namespace echolab::harness
