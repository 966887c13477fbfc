# What the harness records about its own build (environment.hpp): compiler, flags and versions as
# definitions, the commit by a header that is brought up to date at every build.
# LIBURING_VERSION and LIBUV_VERSION are what backends/ was built with, empty where it was without.
string(TOUPPER "${CMAKE_BUILD_TYPE}" build_type)
string(STRIP "${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${build_type}}" flags)
set_source_files_properties(environment.cpp PROPERTIES COMPILE_DEFINITIONS
  "ECHOLAB_VERSION=\"${PROJECT_VERSION}\";\
ECHOLAB_COMPILER=\"${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}\";\
ECHOLAB_FLAGS=\"${flags}\";\
ECHOLAB_BUILD_TYPE=\"${CMAKE_BUILD_TYPE}\";\
ECHOLAB_SANITIZERS=\"${ECHOLAB_SANITIZE}\";\
ECHOLAB_FMT_VERSION=\"${fmt_VERSION}\";\
ECHOLAB_CLI11_VERSION=\"${CLI11_VERSION}\";\
ECHOLAB_JSON_VERSION=\"${nlohmann_json_VERSION}\";\
ECHOLAB_LIBURING_VERSION=\"${LIBURING_VERSION}\";\
ECHOLAB_LIBUV_VERSION=\"${LIBUV_VERSION}\"")

set(commit_header ${CMAKE_CURRENT_BINARY_DIR}/generated/harness/commit.hpp)
add_custom_target(echolab_commit
  COMMAND ${CMAKE_COMMAND} -D SOURCE=${PROJECT_SOURCE_DIR} -D OUTPUT=${commit_header}
          -P ${CMAKE_CURRENT_SOURCE_DIR}/commit.cmake
  BYPRODUCTS ${commit_header}
  VERBATIM)
add_dependencies(echolab_harness echolab_commit)
target_include_directories(echolab_harness PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/generated)
