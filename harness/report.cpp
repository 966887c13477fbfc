#include "harness/report.hpp"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <new>
#include <string_view>
#include <vector>

#include "harness/embedded.hpp"
#include "harness/markup.hpp"
#include "harness/report_data.hpp"

namespace echolab::harness {
namespace {

constexpr const char* kFolder = "harness/report/";

std::string deflated(const std::string& text) {
  uLongf size = compressBound(text.size());
  std::string out(size, '\0');
  // With room for the worst case, memory is all that can be missing.
  if (compress2(reinterpret_cast<Bytef*>(out.data()), &size,
                reinterpret_cast<const Bytef*>(text.data()), text.size(),
                Z_BEST_COMPRESSION) != Z_OK) {
    throw std::bad_alloc();
  }
  out.resize(size);
  return out;
}

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t have = std::min<std::size_t>(3, bytes.size() - i);
    std::uint32_t group = 0;
    for (std::size_t k = 0; k < 3; ++k) {
      group = group << 8 | (k < have ? static_cast<unsigned char>(bytes[i + k]) : 0U);
    }
    for (std::size_t k = 0; k < 4; ++k) {
      out += k <= have ? kDigits[group >> (18 - 6 * k) & 63] : '=';
    }
  }
  return out;
}

std::string part(const char* name) {
  return std::string(embedded(std::string(kFolder) + name));
}

std::string parts(std::initializer_list<const char*> names) {
  std::string out;
  for (const char* name : names) out += part(name);
  return out;
}

std::string paragraphs(const std::vector<std::string>& lines) {
  std::string out;
  for (const std::string& line : lines) out += fmt::format("<li>{}</li>", markup_text(line));
  return out.empty() ? "" : fmt::format("<ul class=\"warnings\">{}</ul>", out);
}

// Replaces every {{name}} of the page in one go: what is put in is not looked at again.
std::string filled(std::string_view page,
                   const std::vector<std::pair<std::string_view, std::string>>& values) {
  std::string out;
  while (!page.empty()) {
    const std::size_t begin = page.find("{{");
    out += page.substr(0, begin);
    if (begin == std::string_view::npos) break;
    const std::size_t end = page.find("}}", begin);
    const std::string_view name = page.substr(begin + 2, end - begin - 2);
    for (const auto& [key, value] : values) {
      if (key == name) out += value;
    }
    page.remove_prefix(end + 2);
  }
  return out;
}

}  // namespace

std::string report_html(const RunRecord& run) {
  // Names may hold bytes that are no UTF-8.
  const std::string data =
      report_data(run).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return filled(
      embedded("harness/report/page.html"),
      {{"title", markup_text("echolab: " + date_text(run.started))},
       {"heading", markup_text("echolab run of " + date_text(run.started))},
       {"statement", markup_text(statement(run))},
       {"warnings", paragraphs(warnings(run))},
       {"style", parts({"uplot/uPlot.min.css", "page.css", "sources.css"})},
       // The licence goes where the code goes.
       {"uplot", "/*\n" + part("uplot/LICENSE") + "*/\n" + part("uplot/uPlot.iife.min.js")},
       {"script", parts({"dom.js", "verdicts.js", "charts.js", "sources.js", "page.js"})},
       {"data", base64(deflated(data))}});
}

}  // namespace echolab::harness
