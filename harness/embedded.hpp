// Files that are part of the program, so that an installed one needs no checkout to write a report.
// The list of them is in harness/CMakeLists.txt; embed.cmake makes the C++ file at build time.
#pragma once

#include <string_view>

namespace echolab::harness {

// The text of a file by its path from the project root, "backends/epoll.cpp"; it lives as long as
// the program. Throws std::out_of_range if it is not in the list.
std::string_view embedded(std::string_view name);

}  // namespace echolab::harness
