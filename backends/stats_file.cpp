#include "backends/stats_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

namespace echolab {

StatsFile::StatsFile(std::string path, std::string backend, unsigned threads)
    : path_(std::move(path)), backend_(std::move(backend)), threads_(threads), target_(path_) {
  if (path_.empty()) return;
  struct stat is {};
  const bool exists = ::stat(path_.c_str(), &is) == 0;
  if (!exists && errno != ENOENT) fail(errno);
  if (exists && !S_ISREG(is.st_mode)) {
    stream_ = Fd(::open(path_.c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    if (!stream_) fail(errno);
    return;
  }
  // By hand, as the last link may lead to a file that is still to be made. A circle would have been
  // an error above.
  std::error_code error;
  for (std::filesystem::path at = path_; std::filesystem::is_symlink(at, error);) {
    const std::filesystem::path to = std::filesystem::read_symlink(at, error);
    if (error) fail(error.value());
    at = at.parent_path() / to;
    target_ = at.string();
  }
}

void StatsFile::write(const Backend& backend, bool final) {
  if (path_.empty()) return;
  const Stats stats = backend.stats();
  nlohmann::ordered_json document{{"schema", "echolab.stats"}, {"version", 1},
                                  {"backend", backend_},       {"threads", threads_},
                                  {"pid", getpid()},           {"port", backend.port()},
                                  {"snapshot", snapshot_++},   {"final", final}};
  document["features"] = nlohmann::ordered_json::array();
  for (const Feature& f : stats.features) {
    document["features"].push_back(
        {{"name", f.name}, {"asked", f.asked}, {"granted", f.granted}, {"note", f.note}});
  }
  for (std::size_t i = 0; i < kCounts; ++i) {
    document["counters"][name_of(static_cast<Count>(i))] = stats.counts[i];
  }
  document["batches"] = stats.batches;
  const std::string text = document.dump(1) + '\n';
  if (stream_) return put(stream_, text);

  const std::string temporary = fmt::format("{}.{}.tmp", target_, getpid());
  const Fd file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (!file) fail(errno);
  try {
    put(file, text);
    if (std::rename(temporary.c_str(), target_.c_str()) != 0) fail(errno);
  } catch (const std::system_error&) {
    std::remove(temporary.c_str());
    throw;
  }
}

void StatsFile::put(const Fd& fd, const std::string& text) const {
  for (std::string_view left = text; !left.empty();) {
    const ssize_t n = ::write(fd.get(), left.data(), left.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(errno);
    left.remove_prefix(static_cast<std::size_t>(n));
  }
}

void StatsFile::fail(int error) const {
  throw_errno(error, "cannot write the counters to " + path_);
}

}  // namespace echolab
