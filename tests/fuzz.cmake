# The fuzz targets: build/asan/NAME, to be run on its corpus, as
# build/asan/fuzz_http -max_total_time=30 tests/corpus/http
if(NOT CMAKE_CXX_COMPILER_ID MATCHES Clang)
  message(FATAL_ERROR "ECHOLAB_FUZZ needs clang: libFuzzer is a part of it")
endif()
# What is fuzzed runs often, and libFuzzer wants to see where it goes.
target_compile_options(echolab_patterns PRIVATE -O1 -fsanitize=fuzzer-no-link)
function(echolab_add_fuzzer target)
  add_executable(${target} ${ARGN})
  target_link_libraries(${target} PRIVATE echolab_patterns)
  target_link_options(${target} PRIVATE -fsanitize=fuzzer)
endfunction()

echolab_add_fuzzer(fuzz_http tests/fuzz_http.cpp)
echolab_add_fuzzer(fuzz_websocket tests/fuzz_websocket.cpp tests/ws_client.cpp)
target_link_libraries(fuzz_websocket PRIVATE fmt::fmt ZLIB::ZLIB)
