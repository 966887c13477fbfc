// The folder of a run: run.json, table.md, hgrm/*.hgrm. Written so that a full disk or a crash
// never leaves half a file behind, and never over another run.
#pragma once

#include <filesystem>
#include <stdexcept>
#include <string>

#include "harness/run_record.hpp"

namespace echolab::harness {

// what() is one line that names the file or folder.
struct FolderError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class RunFolder {
 public:
  // Creates the folder and proves that it can be written to, before anything is measured. Throws
  // FolderError, also if it already holds a run.
  explicit RunFolder(std::filesystem::path);
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;
  ~RunFolder();  // removes the folder if it was made here and nothing was written

  // run.json, also while the run goes on: replaced as a whole, and synced. Throws FolderError.
  void write_run(const RunRecord& run) { write("run.json", to_text(run), true); }
  // All files of a finished run. Throws FolderError.
  void write_all(const RunRecord&);
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  void write(const std::filesystem::path& name, const std::string& text, bool synced);

  std::filesystem::path path_;
  bool created_ = false;
};

// "results/20250131-235959", by the local clock.
std::filesystem::path default_run_folder();

// A run folder, or the path of its run.json. Throws RecordError, which names the file.
RunRecord read_run(const std::filesystem::path&);

}  // namespace echolab::harness
