// The headline of a run as an image for READMEs: in a few cells, what each variant costs the CPU
// against the baseline, with the interval and the verdict. Text is text, nothing is loaded and
// nothing runs, so that it may stand in an <img>. Pure functions of the record.
#pragma once

#include <string>
#include <vector>

#include "harness/run_record.hpp"

namespace echolab::harness {

enum class Theme { light, dark };

// The cells of 64 bytes with one request in flight per connection, closed loop; if there are none,
// the first ones that there are.
std::vector<const CellRecord*> headline_cells(const RunRecord&);

// An SVG document, 860 wide and as high as it has rows; ratios on a logarithmic axis. A run without
// verdicts has hollow dots, and says why; so does an empty one.
std::string verdict_svg(const RunRecord&, Theme);

}  // namespace echolab::harness
