# Run at every build (cmake -P): writes OUTPUT with the commit that SOURCE is at, if that changed.
# Outside git, or without the git program, the commit is "unknown"; the build never fails for it.
set(commit "unknown")
set(dirty "std::nullopt")
find_program(git_program git)
if(git_program)
  execute_process(
    COMMAND ${git_program} -C ${SOURCE} rev-parse --show-prefix HEAD
    OUTPUT_VARIABLE answer RESULT_VARIABLE failed ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
  # An empty prefix says that SOURCE is the top of its repository: unpacked inside somebody else's,
  # the commit would be theirs.
  if(NOT failed AND answer MATCHES "^\n([0-9a-f]+)$")
    set(commit ${CMAKE_MATCH_1})
    # Untracked files are left out: results of earlier runs are such.
    execute_process(
      COMMAND ${git_program} -C ${SOURCE} status --porcelain --untracked-files=no
      OUTPUT_VARIABLE changes RESULT_VARIABLE failed ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
    if(NOT failed)
      if(changes STREQUAL "")
        set(dirty "false")
      else()
        set(dirty "true")
      endif()
    endif()
  endif()
endif()

set(text "// Written by commit.cmake at build time.
#pragma once

#include <optional>

namespace echolab::harness {
inline constexpr const char* kCommit = \"${commit}\";
inline constexpr std::optional<bool> kDirty = ${dirty};
}  // namespace echolab::harness
")
if(EXISTS ${OUTPUT})
  file(READ ${OUTPUT} before)
endif()
if(NOT "${before}" STREQUAL "${text}")
  file(WRITE ${OUTPUT} "${text}")
endif()
