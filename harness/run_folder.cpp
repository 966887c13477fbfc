#include "harness/run_folder.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/file.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <sstream>
#include <system_error>
#include <vector>

#include "harness/files.hpp"
#include "harness/table.hpp"

namespace echolab::harness {
namespace {

namespace fs = std::filesystem;

// A default run is about 1 MiB; more than this is not a run, and reading it could exhaust memory.
constexpr std::uintmax_t kMaxRunFile = 512ULL * 1024 * 1024;  // bytes

[[noreturn]] void fail(const fs::path& path, const std::string& why) {
  throw FolderError(fmt::format("cannot write {}: {}", path.string(), why));
}

// Removes the temporary file unless it has become the final one.
class Temporary {
 public:
  explicit Temporary(fs::path path) : path_(std::move(path)) {}
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;
  ~Temporary() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove(path_, ignored);
  }
  [[nodiscard]] const fs::path& path() const { return path_; }
  void become(const fs::path& final_path) {
    std::error_code code;
    fs::rename(path_, final_path, code);
    if (code) fail(final_path, code.message());
    path_.clear();
  }

 private:
  fs::path path_;
};

void write_file(const fs::path& path, const std::string& text, bool synced) {
  const Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!file) fail(path, std::strerror(errno));
  if (!write_text(file.get(), text)) fail(path, std::strerror(errno));
  if (synced && ::fsync(file.get()) != 0) fail(path, std::strerror(errno));
}

}  // namespace

void replace_file(const fs::path& path, const std::string& text, bool synced) {
  // Renaming would put a file in the place of a device, such as /dev/stdout.
  std::error_code code;
  if (fs::exists(path, code) && !fs::is_regular_file(path, code)) fail(path, "not a regular file");
  Temporary temporary(path.string() + ".tmp");
  write_file(temporary.path(), text, synced);
  temporary.become(path);
}

RunFolder::RunFolder(fs::path path) : RunFolder(std::move(path), false) {
}

RunFolder::RunFolder(fs::path path, bool created) : path_(std::move(path)), created_(created) {
  std::error_code code;
  created_ = fs::create_directories(path_, code) || created_;
  if (code) fail(path_, code.message());
  // The kernel gives the claim back when this process ends, however it does. A file system without
  // locks (then it is not EWOULDBLOCK) cannot tell two runs apart.
  claim_ = Descriptor(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!claim_) fail(path_, std::strerror(errno));
  if (::flock(claim_.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    throw FolderError(fmt::format(
        "{} is being filled by another run; choose another folder with -o", path_.string()));
  }
  if (fs::exists(path_ / "run.json", code)) {
    throw FolderError(
        fmt::format("{} already holds a run; choose another folder with -o", path_.string()));
  }
  const Temporary probe(path_ / ".write-test");
  write_file(probe.path(), "x", true);
}

RunFolder RunFolder::with_default_name() {
  const fs::path base = default_run_folder();
  std::error_code code;
  fs::create_directories(base.parent_path(), code);
  if (code) fail(base.parent_path(), code.message());
  fs::path path = base;
  for (unsigned n = 2; !fs::create_directory(path, code); ++n) {
    if (code && code != std::errc::file_exists) fail(path, code.message());
    path = base.string() + fmt::format("-{}", n);
  }
  return {path, true};
}

RunFolder::~RunFolder() {
  std::error_code ignored;
  if (created_ && !used_) fs::remove(path_, ignored);  // only removes it if it is empty
}

void RunFolder::write(const fs::path& name, const std::string& text, bool synced) {
  used_ = true;
  const fs::path path = path_ / name;
  std::error_code code;
  fs::create_directories(path.parent_path(), code);
  if (code) fail(path.parent_path(), code.message());
  replace_file(path, text, synced);
}

void RunFolder::write_run(const RunRecord& run) {
  write("run.json", to_text(run), true);
  kept_cells_ = run.cells.size();
}

void RunFolder::write_histograms(const RunRecord& run) {
  for (const CellRecord& cell : run.cells) {
    for (const Result& result : cell.results) {
      if (result.latency.count() == 0) continue;
      const std::string stem = "hgrm/" + file_stem(result.variant, cell.shape);
      std::ostringstream text;
      result.latency.write_hgrm(text);
      write(stem + ".hgrm", text.str(), false);
      if (!result.raw) continue;
      std::ostringstream raw;
      result.raw->write_hgrm(raw);
      write(stem + "-raw.hgrm", raw.str(), false);
    }
  }
}

void RunFolder::write_all(const RunRecord& run) {
  std::string first_error;
  std::vector<std::string> kept;
  const auto attempt = [&](const auto& step) {
    try {
      step();
      return true;
    } catch (const FolderError& error) {
      if (first_error.empty()) first_error = error.what();
      return false;
    }
  };
  // The table is what most want and the smallest. Only run.json must be on the disk itself: the
  // rest could be made again from it.
  if (attempt([&] { write("table.md", markdown_table(run), false); }))
    kept.emplace_back("table.md");
  if (attempt([&] { write_run(run); })) {
    kept.emplace_back("run.json");
  } else if (kept_cells_ > 0) {
    kept.push_back(
        fmt::format("run.json with {} of {} cells, marked partial", kept_cells_, run.cells.size()));
  }
  if (first_error.empty()) attempt([&] { write_histograms(run); });
  if (first_error.empty()) return;
  throw FolderError(fmt::format(
      "{}; {}", first_error,
      kept.empty() ? "nothing is kept but what was shown"
                   : fmt::format("kept in {}: {}", path_.string(), fmt::join(kept, ", "))));
}

fs::path default_run_folder() {
  const std::time_t now = std::time(nullptr);
  return fs::path("results") / fmt::format("{:%Y%m%d-%H%M%S}", fmt::localtime(now));
}

RunRecord read_run(const fs::path& given) {
  std::error_code code;
  const fs::path path = fs::is_directory(given, code) ? given / "run.json" : given;
  const auto error = [&](const std::string& why) {
    return RecordError(fmt::format("{}: {}", path.string(), why));
  };
  const std::uintmax_t size = fs::file_size(path, code);
  if (code) throw error(code.message() + " (give a run folder or its run.json)");
  if (size > kMaxRunFile) throw error("too large to be a run");
  std::ifstream in(path, std::ios::binary);
  if (!in) throw error(std::strerror(errno));
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  nlohmann::json document;
  try {
    document = nlohmann::json::parse(text);
  } catch (const nlohmann::json::parse_error& bad) {
    // The parser counts from 1, and the end of the text as one byte more.
    throw error(bad.byte > text.size()
                    ? fmt::format("not JSON: it ends after {} bytes; was it cut off? Measure again",
                                  text.size())
                    : fmt::format("not JSON: byte {} of {} cannot stand there; was it edited? "
                                  "Measure again",
                                  bad.byte, text.size()));
  } catch (const nlohmann::json::out_of_range&) {
    throw error("not JSON: it has a number that is too large; was it edited? Measure again");
  }
  try {
    return run_from_json(document);
  } catch (const RecordError& bad) {
    throw error(bad.what());
  }
}

}  // namespace echolab::harness
