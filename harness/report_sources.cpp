#include "harness/report_sources.hpp"

#include <algorithm>
#include <optional>

#include "harness/embedded.hpp"
#include "harness/explain.hpp"
#include "harness/ratio.hpp"
#include "harness/table.hpp"

namespace echolab::harness {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kSources[] = {"threads", "epoll", "io_uring", "libuv"};

// The title of "  // ---- receive ------"; absent: the line is none that begins a section.
std::optional<std::string_view> title_of(std::string_view line) {
  constexpr std::string_view kBegin = "// ---- ", kEnd = " ----";
  const std::size_t begin = line.find_first_not_of(' ');
  if (begin == std::string_view::npos || !line.substr(begin).starts_with(kBegin)) {
    return std::nullopt;
  }
  line.remove_prefix(begin + kBegin.size());
  const std::size_t end = line.find(kEnd);
  if (end == std::string_view::npos || end == 0) return std::nullopt;
  if (line.find_first_not_of("-\r", end + 1) != std::string_view::npos) return std::nullopt;
  return line.substr(0, end);
}

// A file that has a title twice has two sections: the n-th of one file belongs to the n-th of
// another.
struct Place {
  std::string title;
  std::size_t nth = 0;
  friend bool operator==(const Place&, const Place&) = default;
};

std::vector<Place> places_of(const std::vector<SourceSection>& sections) {
  std::vector<Place> out;
  for (const SourceSection& section : sections) {
    const auto before = std::count_if(
        out.begin(), out.end(), [&](const Place& place) { return place.title == section.title; });
    out.push_back({section.title, static_cast<std::size_t>(before)});
  }
  return out;
}

// Every place once: a new one behind its predecessor in the file that has it.
void merge(std::vector<Place>& all, const std::vector<Place>& file) {
  auto next = all.begin();
  for (const Place& place : file) {
    const auto known = std::find(all.begin(), all.end(), place);
    next = (known != all.end() ? known : all.insert(next, place)) + 1;
  }
}

// ---- costs --------------------------------------------------------------------------------------

struct CountedIn {
  const char* counter;
  const char* section;
  const char* what;
};
constexpr CountedIn kCounted[] = {{"sys_accept", "accept", "accept4"},
                                  {"sys_recv", "receive", "recv or read"},
                                  {"op_recv", "receive", "receive completions"},
                                  {"rearms", "receive", "asked for again"},
                                  {"enobufs", "receive", "no buffer"},
                                  {"pool_jobs", "call the session", "pool jobs"},
                                  {"sys_send", "send", "send or write"},
                                  {"op_send", "send", "send completions"},
                                  {"short_sends", "send", "short sends"},
                                  {"bytes_copied", "send", "bytes copied"},
                                  {"pauses", "send", "pauses of reading"},
                                  {"sys_wake", "post", "eventfd write or read"},
                                  {"sys_shutdown", "close", "shutdown"},
                                  {"sys_close", "close", "close"},
                                  {"sys_wait", "run", "epoll_wait or poll"},
                                  {"sys_enter", "run", "io_uring_enter"},
                                  {"wakeups", "run", "wake-ups"},
                                  {"eagain", "run", "EAGAIN"},
                                  {"sys_epoll_ctl", "run", "epoll_ctl"},
                                  {"sys_sockopt", "run", "setsockopt"}};

std::string section_of(const CountedIn& one, const std::string& backend) {
  const bool way_back = backend == "libuv" && std::string_view(one.counter) == "sys_wake";
  return way_back ? "call the session" : one.section;
}

Json costs_of(const Result& result, const std::string& backend) {
  Json sections = Json::object();
  const auto list = [&](const std::string& section, const char* what,
                        const std::optional<double>& count) {
    if (!count || *count == 0) return;
    sections[section].push_back({{"what", what}, {"count", figure(count)}});
  };
  for (const CountedIn& one : kCounted) {
    const auto found = result.window.counters->find(one.counter);
    if (found == result.window.counters->end()) continue;
    list(section_of(one, backend), one.what,
         ratio(as_double(found->second), as_double(result.window.requests)));
  }
  list("run", "events a wake-up", result.summary.events_per_wakeup);
  list("run", "context switches", switches_per_request(result.summary));
  return sections;
}

// The backend's default variant, or else the first; null: none that counted.
const Result* counted(const CellRecord& cell, const std::string& backend) {
  const Result* first = nullptr;
  for (const Result& result : cell.results) {
    if (!result.window.counters || result.window.requests == 0) continue;
    if (result.variant == backend) return &result;
    if (first == nullptr && result.variant.starts_with(backend + ":")) first = &result;
  }
  return first;
}

}  // namespace

std::vector<SourceSection> source_sections(std::string_view file) {
  std::vector<SourceSection> out;
  unsigned number = 0;
  for (std::size_t begin = 0, end = 0; begin < file.size(); begin = end) {
    end = std::min(file.find('\n', begin), file.size() - 1) + 1;
    const std::string_view line = file.substr(begin, end - begin);
    const std::string_view text = line.ends_with('\n') ? line.substr(0, line.size() - 1) : line;
    const std::optional<std::string_view> title = title_of(text);
    ++number;
    if (title || out.empty()) {
      out.push_back({std::string(title.value_or("mechanism")), number, line});
    } else {
      std::string_view& section = out.back().text;
      section = {section.data(), section.size() + line.size()};
    }
  }
  return out;
}

Json aligned_sections(const std::vector<Source>& sources) {
  std::vector<std::vector<SourceSection>> files;
  std::vector<Place> all;
  for (const Source& source : sources) {
    files.push_back(source_sections(source.text));
    merge(all, places_of(files.back()));
  }
  Json out = Json::array();
  for (const Place& place : all) {
    Json cells = Json::array();
    for (std::size_t i = 0; i < sources.size(); ++i) {
      const std::vector<Place> places = places_of(files[i]);
      const auto found = std::find(places.begin(), places.end(), place);
      if (found == places.end()) {
        cells.push_back(nullptr);
        continue;
      }
      const SourceSection& section = files[i][static_cast<std::size_t>(found - places.begin())];
      cells.push_back({{"backend", sources[i].backend},
                       {"first_line", section.first_line},
                       {"text", section.text}});
    }
    out.push_back({{"title", place.title}, {"cells", std::move(cells)}});
  }
  return out;
}

Json section_costs(const CellRecord& cell) {
  Json out = Json::object();
  for (const std::string backend : kSources) {
    const Result* result = counted(cell, backend);
    if (result == nullptr) continue;
    out[backend] = {{"variant", result->variant}, {"sections", costs_of(*result, backend)}};
  }
  return out;
}

Json report_sources() {
  std::vector<Source> sources;
  for (const std::string name : kSources) {
    sources.push_back({name, embedded("backends/" + name + ".cpp")});
  }
  return {{"backends", kSources}, {"sections", aligned_sections(sources)}};
}

}  // namespace echolab::harness
