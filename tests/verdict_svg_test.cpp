// The image of a run's headline.
#include "harness/verdict_svg.hpp"

#include <algorithm>

#include "harness/files.hpp"
#include "harness/run_folder.hpp"
#include "tests/catch.hpp"
#include "tests/helpers.hpp"
#include "tests/sample_run.hpp"

using namespace echolab::harness;

namespace {

bool allowed(const std::string& text) {
  for (std::size_t at = 0; (at = text.find('&', at)) != std::string::npos; ++at) {
    const auto is = [&](std::string_view entity) {
      return text.compare(at, entity.size(), entity) == 0;
    };
    if (!is("&amp;") && !is("&lt;") && !is("&gt;") && !is("&quot;")) return false;
  }
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return c == '\n' || static_cast<unsigned char>(c) >= 0x20; });
}

// What is wrong with it as XML, as far as an SVG of ours goes; empty if nothing is.
std::string flaw(const std::string& xml) {
  std::vector<std::string> open;
  std::size_t roots = 0;
  for (std::size_t at = 0; at < xml.size();) {
    const std::size_t begin = xml.find('<', at);
    const std::string text = xml.substr(at, begin - at);
    if (!allowed(text) || text.find('>') != std::string::npos) return "text: " + text;
    if (open.empty() && text.find_first_not_of('\n') != std::string::npos)
      return "outside: " + text;
    if (begin == std::string::npos) break;
    const std::size_t end = xml.find('>', begin);
    if (end == std::string::npos) return "a tag without end";
    const std::string tag = xml.substr(begin + 1, end - begin - 1);
    if (count(tag, "\"") % 2 != 0 || tag.find('<') != std::string::npos || !allowed(tag))
      return tag;
    if (tag.starts_with("/")) {
      if (open.empty() || open.back() != tag.substr(1)) return tag + " closes nothing";
      open.pop_back();
    } else {
      if (open.empty()) ++roots;
      if (!tag.ends_with("/")) open.push_back(tag.substr(0, tag.find(' ')));
    }
    at = end + 1;
  }
  if (!open.empty()) return open.back() + " is not closed";
  return roots == 1 ? "" : "not one root";
}

std::string light(const RunRecord& run) {
  std::string svg = verdict_svg(run, Theme::light);
  CHECK(flaw(svg).empty());
  return svg;
}

}  // namespace

TEST_CASE("the image of a stored run is what it was", "[svg]") {
  const auto golden = read_text("tests/data/run-explained.svg");
  REQUIRE(golden);
  CHECK(light(read_run("tests/data/run-explained.json")) == *golden);
}

TEST_CASE("both themes say the same in other colours", "[svg]") {
  const std::string a = light(sample_run()), b = verdict_svg(sample_run(), Theme::dark);
  CHECK(flaw(b).empty());
  CHECK(a != b);
  const auto body = [](const std::string& svg) { return svg.substr(svg.find("<text")); };
  CHECK(body(a) == body(b));
}

TEST_CASE("a verdict has a shape of its own, and what has none is hollow", "[svg]") {
  RunRecord run = sample_run();
  std::optional<Judgement>& other = run.cells[0].results[1].verdicts.cpu;
  REQUIRE(other);
  CHECK(other->verdict == Verdict::slower);
  const std::string slower = light(run);
  CHECK(count(slower, "<path") == 1);
  CHECK(count(slower, "class=\"hollow\"") == 1);  // the second copy
  CHECK(contains(slower, ">slower</text>"));
  other->verdict = Verdict::faster;
  const std::string faster = light(run);
  CHECK(contains(faster, ">faster</text>"));
  const auto path = [](const std::string& svg) { return svg.substr(svg.find("<path"), 20); };
  CHECK(path(faster) != path(slower));
  other->verdict = Verdict::none;
  other->why = "too noisy: A/A differs by 9.0 %";
  const std::string none = light(run);
  CHECK(count(none, "<path") == 0);
  CHECK(count(none, "class=\"hollow\"") == 2);
  CHECK(contains(none, ">too noisy</text>"));
  CHECK(contains(none, "no verdict: too noisy: A/A differs by 9.0 %."));  // in the description
}

TEST_CASE("a run without verdicts shows hollow dots and says so", "[svg]") {
  RunRecord run = sample_run();
  for (CellRecord& cell : run.cells) {
    for (Result& result : cell.results) result.verdicts = {};
  }
  CHECK(contains(light(run), "No verdicts: this run has no blocks"));
  CHECK(count(light(run), "class=\"hollow\"") == 2);
  CHECK_FALSE(contains(light(run), "class=\"band\""));
  run.plan.quick = true;
  CHECK(contains(light(run), "Quick run: numbers, never a verdict"));
  CHECK_FALSE(contains(light(run), "No verdicts:"));
}

TEST_CASE("runs with gaps", "[svg]") {
  RunRecord run = sample_run();
  SECTION("partial") {
    run.partial = true;
    CHECK(contains(light(run), "Partial run"));
  }
  SECTION("empty") {
    run.cells.clear();
    CHECK(contains(light(run), "Empty run: nothing was measured."));
  }
  SECTION("a row that failed, one without figures") {
    run.cells[0].results[1].error = "it died";
    run.cells[0].results[2].summary = {};
    run.cells[0].results[2].verdicts = {};
    const std::string svg = light(run);
    CHECK(contains(svg, ">failed</text>"));
    CHECK(contains(svg, "epoll (A/A) has no ratio."));
    CHECK(count(svg, ">-</text>") == 2);  // neither a ratio nor CPU
  }
  SECTION("no baseline, no environment") {
    run.cells[0].results.erase(run.cells[0].results.begin());
    run.environment = nlohmann::json::object();
    CHECK(contains(light(run), "unknown, unknown CPUs"));
  }
  SECTION("figures beyond reason") {
    std::optional<Judgement>& one = run.cells[0].results[1].verdicts.cpu;
    one->delta = 5;
    one->ratio = 1e30;
    one->low = 0;
    CHECK_FALSE(contains(light(run), "nan"));
    CHECK_FALSE(contains(light(run), "inf"));
  }
}

TEST_CASE("names cannot leave their place", "[svg]") {
  RunRecord run = sample_run();
  for (const std::string name :
       {"<script>alert(1)</script>", "a&b\"c'd]]>", "\xff\xfe bytes\n\x01", "\uFFFF\uFFFE",
        "a name of far more than twenty characters, \u00e9\u00e9"}) {
    CAPTURE(name);
    run.cells[0].results[1].variant = name;
    run.plan.baseline = name;
    run.environment["machine"]["cpu_model"] = name;
    run.started = name;
    const std::string svg = light(run);
    CHECK_FALSE(contains(svg, "<script"));
    CHECK_FALSE(contains(svg, "\uFFFF"));
    CHECK_NOTHROW(nlohmann::json(svg).dump());  // it is UTF-8
  }
  CHECK(contains(light(run), ">a name of far more t\u2026</text>"));
}

TEST_CASE("headline cells are those of 64 bytes and depth 1, else the first", "[svg]") {
  RunRecord run = sample_run();
  const auto only = [&](std::initializer_list<CellShape> shapes) {
    run.cells.clear();
    for (const CellShape& shape : shapes) run.cells.push_back({shape, {}});
    std::string names;
    for (const CellRecord* cell : headline_cells(run)) names += cell->shape.name() + " ";
    return names;
  };
  CHECK(only({{1, 64, 1}, {1, 64, 16}, {9, 64, 1}, {9, 64, 1, 500}, {9, 4096, 1}}) ==
        "c1/s64/d1 c9/s64/d1 ");
  CHECK(only({{1, 128, 2}, {2, 128, 2}}) == "c1/s128/d2 c2/s128/d2 ");
  CHECK(only({{1, 64, 1}, {2, 64, 1}, {3, 64, 1}, {4, 64, 1}, {5, 64, 1}}) ==
        "c1/s64/d1 c2/s64/d1 c3/s64/d1 c4/s64/d1 ");
  CHECK(only({}).empty());
}
