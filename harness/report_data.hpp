// What report.html shows, as one JSON document: the record, shortened to what can be seen on a
// screen. Pure functions of the record; what is absent there is left out here.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "harness/run_record.hpp"

namespace echolab::harness {

// The percentile curve has its points at 1/(1-q) = 10^(i / kCurvePerDecade), i from 0 on, as far as
// the samples support a percentile.
inline constexpr int kCurvePerDecade = 16;

// "25 November 2026, 10:51 UTC" of "2026-11-25T10:51:37Z"; anything else as it is.
std::string date_text(const std::string& started);
// One paragraph: what was measured, where, when and how.
std::string statement(const RunRecord&);
// What a reader must know before the first number: partial, quick, failed, no verdicts. None: good.
std::vector<std::string> warnings(const RunRecord&);

// The values of slices are steps on a logarithmic scale, so that they take little room: pairs of
// `digits`, of base 64, of which half the range is the variant's `center`: value = center x
// exp((n - 2048) / steps_per_e). Two spaces: this slice has none.
nlohmann::ordered_json report_data(const RunRecord&);

}  // namespace echolab::harness
