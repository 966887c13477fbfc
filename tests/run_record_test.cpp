// run.json: what is written is read back; what is damaged is refused with its place named.
#include "harness/run_record.hpp"

#include <fstream>
#include <set>

#include "harness/json_reader.hpp"
#include "harness/run_folder.hpp"
#include "tests/catch.hpp"
#include "tests/helpers.hpp"
#include "tests/sample_run.hpp"

using namespace echolab::harness;
using nlohmann::json;

namespace {

using Pointer = json::json_pointer;

json sample_document() {
  return json::parse(to_text(sample_run()));
}

// Free-form parts: what is in them is for other readers.
bool free_form(const Pointer& where) {
  const std::string text = where.to_string();
  return text.find("/environment/") == 0 || contains(text, "/counters/") ||
         contains(text, "/syscalls_by_kind/");
}

// Every member of every object, and the first element of every list.
void collect(const json& value, const Pointer& at, std::vector<Pointer>& out) {
  if (value.is_object()) {
    for (const auto& item : value.items()) {
      const Pointer member = at / item.key();
      if (free_form(member)) continue;
      out.push_back(member);
      collect(item.value(), member, out);
    }
  } else if (value.is_array() && !value.empty()) {
    out.push_back(at / 0);
    collect(value[0], at / 0, out);
  }
}

// Members that the first files of this version lack.
bool added(const Pointer& where) {
  if (where.back() == "blocks" && contains(where.to_string(), "/results/")) {
    return !contains(where.to_string(), "/verdicts/");
  }
  static const std::set<std::string> kAdded{"memory",
                                            "tcp_kib_per_connection",
                                            "idle_ticks",
                                            "run_delay_ns",
                                            "run_delay_us_per_request",
                                            "others_share",
                                            "seams",
                                            "sweep",
                                            "sweeps"};
  return kAdded.count(where.back()) == 1;
}

std::string refusal(const json& document) {
  return error_of([&] { run_from_json(document); });
}

}  // namespace

TEST_CASE("a run survives being written and read", "[record]") {
  const RunRecord run = sample_run();
  const json document = json::parse(to_text(run));
  const RunRecord again = run_from_json(document);
  CHECK(to_text(again) == to_text(run));
  CHECK(again.cells.at(0).results.at(0).latency.count() ==
        4000 + 4001 + 4003 + 4004 + 4005 + 4006 + 4007);
  CHECK(again.cells.at(1).results.at(0).raw->quantile(0.5) ==
        run.cells.at(1).results.at(0).raw->quantile(0.5));
  CHECK(again.plan.contenders.at(1).command == "other-server {port}");
  CHECK(again.environment == run.environment);
}

TEST_CASE("a stored run can be summarised again to the same figures", "[record]") {
  const RunRecord run = sample_run();
  RunRecord again = run_from_json(json::parse(to_text(run)));
  for (CellRecord& cell : again.cells) summarise(cell, again.plan, again.placement, again.steal);
  CHECK(to_text(again) == to_text(run));
}

TEST_CASE("a histogram with empty stretches survives", "[record]") {
  RunRecord run = sample_run();
  Result& result = run.cells[0].results[0];
  result.latency.clear();
  result.slices.resize(1);
  result.slices[0].requests = 6;
  result.blocks.clear();
  for (const std::uint64_t ns : {0ULL, 1ULL, 5ULL, 2047ULL, 1'000'000'000ULL}) {
    result.latency.record(ns);
  }
  result.latency.record(Histogram::kMaxValue);
  const RunRecord again = run_from_json(json::parse(to_text(run)));
  CHECK(again.cells[0].results[0].latency.buckets() == result.latency.buckets());
  CHECK(again.cells[0].results[0].latency.max() == Histogram::kMaxValue);
}

TEST_CASE("an interrupted run without cells survives", "[record]") {
  RunRecord run = sample_run();
  run.partial = true;
  run.cells.clear();
  CHECK(run_from_json(json::parse(to_text(run))).partial);
}

TEST_CASE("text that is not UTF-8 is written replaced, not refused", "[record]") {
  RunRecord run = sample_run();
  run.cells[0].results[0].error = "the server said \xff\xfe";
  run.command.emplace_back("\xc3");
  CHECK_NOTHROW(run_from_json(json::parse(to_text(run))));
}

TEST_CASE("a run without any one of its fields is refused", "[record]") {
  const json document = sample_document();
  std::vector<Pointer> places;
  collect(document, Pointer(), places);
  REQUIRE(places.size() > 150);
  for (const Pointer& place : places) {
    if (place.back() == "0") continue;  // an element, not a field
    json damaged = document;
    damaged[place.parent_pointer()].erase(place.back());
    INFO(place.to_string());
    const std::string line = refusal(damaged);
    if (added(place)) {
      CHECK(line.empty());
      continue;
    }
    CHECK(contains(line, place.back()));
    CHECK_FALSE(contains(line, "\n"));
  }
}

TEST_CASE("a run with any one field of another type is refused", "[record]") {
  const json document = sample_document();
  std::vector<Pointer> places;
  collect(document, Pointer(), places);
  for (const Pointer& place : places) {
    for (const json& wrong : {json("text"), json(-1), json(1.5), json(true), json::array({json()}),
                              json({{"object", nullptr}})}) {
      json damaged = document;
      const json& right = document[place];
      if (wrong.type() == right.type()) continue;
      // Numbers that are not whole numbers or not bounded below take the others' place rightly.
      if (wrong.is_number() && (right.is_number_float() || right.is_null())) continue;
      if (wrong.is_number() && contains(place.to_string(), "/summary/")) continue;
      if (wrong == json(1.5) && right.is_number()) {
        const std::string name = place.back() == "0" ? place.parent_pointer().back() : place.back();
        static const std::set<std::string> kReal{
            "limit",          "worst",      "rates_per_s",   "rate_shares",
            "requests_per_s", "rate_per_s", "inflight_mean", "duration_s",
            "median_share",   "ratio",      "low",           "high",
            "delta",          "p",          "p_holm",        "smallest_effect"};
        if (kReal.count(name) == 1) continue;
      }
      if (wrong == json(-1) && right.is_number()) {
        const std::string name = place.back() == "0" ? place.parent_pointer().back() : place.back();
        static const std::set<std::string> kSigned{"limit",       "worst",          "rates_per_s",
                                                   "rate_shares", "requests_per_s", "rate_per_s",
                                                   "duration_s",  "inflight_mean",  "median_share",
                                                   "buckets",     "ratio",          "low",
                                                   "high",        "delta",          "p",
                                                   "p_holm",      "smallest_effect"};
        if (kSigned.count(name) == 1) continue;
      }
      damaged[place] = wrong;
      INFO(place.to_string() << " = " << wrong.dump());
      CHECK_FALSE(refusal(damaged).empty());
    }
  }
}

TEST_CASE("the first files of this version are read", "[record]") {
  const RunRecord run = read_run("results/reference-2026-11-24");
  const Window& window = run.cells.at(0).results.at(0).window;
  CHECK(window.requests > 0);
  CHECK(window.memory.empty());
  CHECK_FALSE(window.run_delay_ns);
  CHECK_FALSE(run.cells.at(0).results.at(0).idle_known);
  const RunRecord again = run_from_json(json::parse(to_text(run)));
  CHECK_FALSE(again.cells.at(0).results.at(0).idle_known);
  CHECK(again.cells.at(0).results.at(0).blocks.empty());
}

TEST_CASE("what contradicts itself is refused", "[record]") {
  json document = sample_document();
  json& result = document["cells"][0]["results"][0];
  SECTION("columns of different lengths") {
    result["slices"]["requests"].push_back(1U);
    CHECK(contains(refusal(document), "another length"));
  }
  SECTION("samples that do not come from the slices") {
    result["slices"]["requests"][0] = 1U;
    CHECK(contains(refusal(document), "samples"));
  }
  SECTION("blocks that do not come from the slices") {
    result["blocks"][0]["samples"] = 1U;
    CHECK(contains(refusal(document), "blocks: hold"));
  }
  SECTION("a histogram whose count is wrong") {
    result["latency"]["count"] = 1U;
    CHECK(contains(refusal(document), "count"));
  }
  SECTION("a histogram that goes beyond its last bucket") {
    result["latency"]["buckets"] = {-1'000'000'000, 1};
    CHECK(contains(refusal(document), "beyond"));
  }
  SECTION("a histogram that skips as far as numbers go") {
    result["latency"]["buckets"] = {INT64_MIN, 1};
    CHECK(contains(refusal(document), "beyond"));
  }
  SECTION("the same cell twice") {
    document["cells"].push_back(document["cells"][0]);
    CHECK(refusal(document) == "cells: 'c64/s64/d1' is there twice");
  }
  SECTION("the same row twice") {
    document["cells"][0]["results"].push_back(json(result));
    CHECK(refusal(document) == "cells[0].results: 'epoll' is there twice");
  }
  SECTION("the same variant twice") {
    document["variants"].push_back(document["variants"][0]);
    CHECK(contains(refusal(document), "variants: 'epoll'"));
  }
  SECTION("an unknown gate") {
    result["slices"]["gate"][0] = 200U;
    CHECK(contains(refusal(document), "known gate"));
  }
  SECTION("a closed loop with a raw histogram") {
    result["raw"] = result["latency"];
    CHECK(contains(refusal(document), "raw"));
  }
}

TEST_CASE("other schemas and newer versions are refused by name", "[record]") {
  json document = sample_document();
  document["version"] = 3U;
  CHECK(contains(refusal(document), "newer"));
  document["version"] = 0U;
  CHECK_FALSE(refusal(document).empty());
  document["schema"] = "echolab.load";
  CHECK(contains(refusal(document), "echolab.load"));
  for (const json& other : {json(), json(1), json::array(), json("x"), json::object()}) {
    CHECK_FALSE(refusal(other).empty());
  }
}

TEST_CASE("a file that was cut off anywhere is refused with its name", "[record]") {
  const TemporaryFolder folder;
  const std::string text = to_text(sample_run());
  const std::string path = folder.file("run.json");
  const std::size_t whole = text.find_last_of('}');  // the newline after it may be missing
  for (std::size_t length = 0; length <= whole; length += length + 211 > whole ? 1 : 211) {
    std::ofstream(path, std::ios::trunc) << text.substr(0, length);
    INFO(length);
    CHECK(contains(error_of([&] { read_run(folder.path()); }), path));
  }
  std::ofstream(path, std::ios::trunc) << "{ ";
  CHECK(contains(error_of([&] { read_run(folder.path()); }), "it ends after 2 bytes"));
  std::ofstream(path, std::ios::trunc) << "{]}";
  CHECK(contains(error_of([&] { read_run(folder.path()); }), "byte 2 of 3 cannot stand there"));
  std::ofstream(path, std::ios::trunc) << text;
  CHECK_NOTHROW(read_run(folder.path()));
  CHECK_NOTHROW(read_run(path));
  CHECK(contains(error_of([&] { read_run(folder.file("absent")); }), "No such file"));
}
