// A run as one page that needs nothing else: no network, no other file. harness/report/ has its
// parts; report_data.hpp what it shows.
#pragma once

#include <string>

#include "harness/run_record.hpp"

namespace echolab::harness {

// Texts of the record cannot leave their place in it: what is shown before any script runs is
// escaped, all else is compressed. Throws std::bad_alloc at most.
std::string report_html(const RunRecord&);

}  // namespace echolab::harness
