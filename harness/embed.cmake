# Run at build time (cmake -P): writes OUTPUT, a C++ file that holds the text of FILES, named from
# ROOT on, for embedded.hpp. Raw strings, so that what a compiler or a debugger shows is readable.
set(entries "")
foreach(name IN LISTS FILES)
  file(READ ${ROOT}/${name} text)
  string(FIND "${text}" ")embedded\"" early_end)
  if(NOT early_end EQUAL -1)
    message(FATAL_ERROR "${name}: contains what ends a raw string here; choose another delimiter in embed.cmake")
  endif()
  string(APPEND entries "    {\"${name}\", R\"embedded(${text})embedded\"},\n")
endforeach()

file(WRITE ${OUTPUT} "// Written by embed.cmake at build time.
#include \"harness/embedded.hpp\"

#include <stdexcept>
#include <string>

namespace echolab::harness {
namespace {

struct EmbeddedFile {
  std::string_view name, text;
};
constexpr EmbeddedFile kEmbeddedFiles[] = {
${entries}};

}  // namespace

std::string_view embedded(std::string_view name) {
  for (const EmbeddedFile& file : kEmbeddedFiles) {
    if (file.name == name) return file.text;
  }
  throw std::out_of_range(\"no file is embedded as \" + std::string(name));
}

}  // namespace echolab::harness
")
