// The raw controls: echo servers with no interface at all, programs beside this one. A control is
// in the matrix by its name, and what its backend costs more than it is the price of the seam.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

namespace echolab::harness {

struct Control {
  const char* name;     // of the program, and in the matrix
  const char* backend;  // the variant whose mechanism it is
  const char* why;      // it is there
};
std::span<const Control> controls();
const Control* control_named(std::string_view name);  // null: not a control

// Schema echolab.catalogue: what `program` (our echo-server) lists, then the controls. Throws
// ServerError (start), one line.
nlohmann::json catalogue_with_controls(const std::string& program);

}  // namespace echolab::harness
