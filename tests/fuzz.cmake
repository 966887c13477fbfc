# The fuzz targets: build/fuzz/NAME, to be run on its corpus, as
# build/fuzz/fuzz_http -max_total_time=30 tests/corpus/http
if(NOT CMAKE_CXX_COMPILER_ID MATCHES Clang)
  message(FATAL_ERROR "ECHOLAB_FUZZ needs clang: libFuzzer is a part of it")
endif()
add_custom_target(fuzzers)
# What is fuzzed runs often; all else is built only to be seen by clang.
target_compile_options(echolab_patterns PRIVATE -O1)
function(echolab_add_fuzzer target)
  add_executable(${target} ${ARGN})
  target_link_libraries(${target} PRIVATE echolab_patterns)
  target_link_options(${target} PRIVATE -fsanitize=fuzzer)
  add_dependencies(fuzzers ${target})
endfunction()

echolab_add_fuzzer(fuzz_http tests/fuzz_http.cpp)
echolab_add_fuzzer(fuzz_websocket tests/fuzz_websocket.cpp tests/ws_client.cpp)
target_link_libraries(fuzz_websocket PRIVATE fmt::fmt ZLIB::ZLIB)
