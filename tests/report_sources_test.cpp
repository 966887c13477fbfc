// The backend sources as the report shows them.
#include "harness/report_sources.hpp"

#include <algorithm>
#include <set>

#include "backends/stats.hpp"
#include "harness/embedded.hpp"
#include "tests/catch.hpp"
#include "tests/sample_run.hpp"

using namespace echolab::harness;
using Json = nlohmann::ordered_json;

namespace {

const std::vector<std::string> kTitles{"mechanism", "Connection", "setup", "accept",
                                       "receive",   "send",       "post",  "deadlines",
                                       "call",      "close",      "drain", "run"};

std::vector<std::string> titles(const std::vector<SourceSection>& sections) {
  std::vector<std::string> out;
  for (const SourceSection& section : sections) out.push_back(section.title);
  return out;
}

std::vector<std::string> aligned_titles(const std::vector<Source>& sources) {
  std::vector<std::string> out;
  for (const Json& section : aligned_sections(sources)) out.push_back(section["title"]);
  return out;
}

std::string joined(const std::vector<SourceSection>& sections) {
  std::string out;
  for (const SourceSection& section : sections) out += section.text;
  return out;
}

// What the counters cost, as "section/what".
std::set<std::string> places(const Json& costs) {
  std::set<std::string> out;
  for (const auto& [title, figures] : costs["sections"].items()) {
    for (const Json& one : figures) out.insert(title + "/" + one["what"].get<std::string>());
  }
  return out;
}

}  // namespace

TEST_CASE("all backends have the same sections, and nothing is lost", "[sources]") {
  for (const std::string name : {"threads", "epoll", "io_uring", "libuv"}) {
    CAPTURE(name);
    const std::string_view file = embedded("backends/" + name + ".cpp");
    const std::vector<SourceSection> sections = source_sections(file);
    std::vector<std::string> expected = kTitles;
    if (name == "libuv") expected.insert(expected.begin() + 5, "call the session");
    CHECK(titles(sections) == expected);
    CHECK(joined(sections) == file);
    std::ptrdiff_t line = 1;
    for (const SourceSection& section : sections) {
      CHECK(section.first_line == line);
      line += std::count(section.text.begin(), section.text.end(), '\n');
    }
  }
}

TEST_CASE("the report has every section of every backend, side by side", "[sources]") {
  const Json sources = report_sources();
  CHECK(sources["backends"] == Json{"threads", "epoll", "io_uring", "libuv"});
  REQUIRE(sources["sections"].size() == kTitles.size() + 1);
  for (const Json& section : sources["sections"]) {
    REQUIRE(section["cells"].size() == 4);
    for (std::size_t i = 0; i < 4; ++i) {
      const bool here = section["title"] != "call the session" || i == 3;
      CHECK(section["cells"][i].is_null() == !here);
      if (here) CHECK(section["cells"][i]["backend"] == sources["backends"][i]);
    }
  }
}

TEST_CASE("files that are not as they should be have gaps", "[sources]") {
  CHECK(source_sections("").empty());
  const std::vector<SourceSection> plain = source_sections("int a;\nint b;");
  CHECK(titles(plain) == std::vector<std::string>{"mechanism"});
  CHECK(joined(plain) == "int a;\nint b;");
  CHECK(titles(source_sections("// ---- send ----\r\nx\r\n")) == std::vector<std::string>{"send"});
  // No titles: no dashes behind, nothing between, words behind.
  for (const char* line : {"// ---- send", "// ----  ----", "// ----", "// ---- send ---- now",
                           "  int a;  // ---- send ----", "\n\n", "//"}) {
    CAPTURE(line);
    CHECK(titles(source_sections(line)) == std::vector<std::string>{"mechanism"});
  }

  const std::string a = "a\n// ---- one ----\n// ---- two ----\n// ---- one ----\n";
  const std::string b = "// ---- zero ----\n// ---- two ----\n// ---- more ----\n";
  CHECK(aligned_titles({{"a", a}, {"b", b}, {"c", ""}}) ==
        std::vector<std::string>{"zero", "mechanism", "one", "two", "more", "one"});
  const Json sections = aligned_sections({{"a", a}, {"b", b}, {"c", ""}});
  CHECK(sections[3]["cells"][0]["first_line"] == 3);
  CHECK(sections[3]["cells"][1]["first_line"] == 2);
  CHECK(sections[3]["cells"][2].is_null());
  CHECK(sections[5]["cells"][0]["first_line"] == 4);  // the second of its title
  // In another order: each where the first file has it.
  CHECK(aligned_titles({{"a", "// ---- x ----\n// ---- y ----\n"},
                        {"b", "// ---- y ----\n// ---- x ----\n"}}) ==
        std::vector<std::string>{"x", "y"});
  CHECK(aligned_sections({}).empty());
}

TEST_CASE("counters are shown at the section that raises them", "[sources]") {
  RunRecord run = sample_run();
  const Json costs = section_costs(run.cells[0]);
  CHECK(costs.size() == 1);  // the other server is foreign, the second copy is noise
  CHECK(costs["epoll"]["variant"] == "epoll");
  CHECK(costs["epoll"]["sections"]["receive"] ==
        Json::array({{{"what", "recv or read"}, {"count", "1.00"}}}));
  CHECK(places(costs["epoll"]) ==
        std::set<std::string>{"receive/recv or read", "send/send or write",
                              "run/epoll_wait or poll", "run/wake-ups", "run/events a wake-up",
                              "run/context switches"});
}

TEST_CASE("the costs of a backend are those of its default variant, else of the first",
          "[sources]") {
  CellRecord cell = sample_run().cells[0];
  cell.results[0].variant = "epoll:lt";
  CHECK(section_costs(cell)["epoll"]["variant"] == "epoll:lt");
  cell.results.push_back(cell.results[0]);
  cell.results.back().variant = "epoll";
  CHECK(section_costs(cell)["epoll"]["variant"] == "epoll");
  cell.results.back().variant = "epoll2";
  cell.results[0].window.requests = 0;
  CHECK(section_costs(cell).empty());
}

TEST_CASE("every system call of a backend has its section", "[sources]") {
  const std::vector<std::string> counters{
#define X(name) #name,
      ECHOLAB_COUNTERS(X)
#undef X
  };
  for (const std::string backend : {"epoll", "libuv"}) {
    for (const std::string& counter : counters) {
      if (!counter.starts_with("sys_")) continue;
      CAPTURE(backend, counter);
      CellRecord cell;
      cell.results.push_back(sample_result(backend, false, 4'000'000));
      cell.results[0].window.counters = {{counter, 32028}};
      const std::set<std::string> found = places(section_costs(cell)[backend]);
      REQUIRE(found.size() == 1);
      const std::string section = found.begin()->substr(0, found.begin()->find('/'));
      if (counter == "sys_wake")
        CHECK(section == (backend == "epoll" ? "post" : "call the session"));
      CHECK((std::count(kTitles.begin(), kTitles.end(), section) == 1 ||
             section == "call the session"));
    }
  }
}
