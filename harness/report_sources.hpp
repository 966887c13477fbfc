// The backend sources side by side, section by section, and what each section cost in a cell. The
// sources are those that this program was built with (embedded.hpp). Pure functions.
//
// A section begins at its comment line, "// ---- receive ----...", and goes to the next one; what
// stands before the first is the "mechanism".
//
// Costs are the server's own counters (backends/stats.hpp) per request, of the variant named as the
// backend, else of the first one of it in the cell. A counter belongs to the section that raises it
// for an echo, which has no posts, deadlines and calls to upstreams:
//   accept            accept4
//   receive           recv and read; receive completions, multishot receives asked for again, those
//                     without a buffer
//   call the session  libuv: jobs of the pool, and the eventfd of their way back
//   send              send, sendmsg and write; send completions, short sends, bytes copied, pauses
//   post              the eventfd, but for libuv's
//   close             shutdown, close
//   run               what one call does for all sections (waits, io_uring_enter), or what several
//                     raise alike: wake-ups, EAGAIN, epoll_ctl, setsockopt, context switches
// What is zero in a cell is not listed. CPU time cannot be told apart by section.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "harness/run_record.hpp"

namespace echolab::harness {

struct SourceSection {
  std::string title;
  unsigned first_line = 1;  // in the file, from 1 on
  std::string_view text;    // whole lines, the comment line included
};
// In the order of the file; one after the other they are the file. None: it is empty.
std::vector<SourceSection> source_sections(std::string_view file);

struct Source {
  std::string backend;
  std::string_view text;
};
// The sections of all, aligned: [{title, cells: [{backend, first_line, text} | null, ...]}, ...], a
// cell for each source. A section that only some have stands behind the one it follows there.
nlohmann::ordered_json aligned_sections(const std::vector<Source>&);

// {backend: {variant, sections: {title: [{what, count}, ...]}}}; `count` is text, per request but
// where `what` says otherwise. Backends that counted nothing in the cell are absent.
nlohmann::ordered_json section_costs(const CellRecord&);

// {backends, sections}
nlohmann::ordered_json report_sources();

}  // namespace echolab::harness
