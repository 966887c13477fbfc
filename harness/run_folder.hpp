// The folder of a run: run.json, table.md, hgrm/*.hgrm. Written so that a full disk or a crash
// never leaves half a file behind, and never over another run.
#pragma once

#include <filesystem>
#include <stdexcept>
#include <string>

#include "harness/files.hpp"
#include "harness/run_record.hpp"

namespace echolab::harness {

// what() is one line that names the file or folder.
struct FolderError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Replaces a file as a whole: whoever reads it sees the old or the new one. `synced`: it is on the
// disk when this returns. Throws FolderError.
void replace_file(const std::filesystem::path&, const std::string& text, bool synced);

class RunFolder {
 public:
  // Creates the folder, claims it and proves that it can be written to, before anything is
  // measured. Throws FolderError, also if it already holds a run or another process is at one.
  explicit RunFolder(std::filesystem::path);
  // A new one: "results/20250131-235959", by the local clock, with "-2" and so on where that
  // exists.
  static RunFolder with_default_name();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;
  ~RunFolder();  // removes the folder if it was made here and nothing was to be written

  // run.json, also while the run goes on: replaced as a whole, and synced. Throws FolderError.
  void write_run(const RunRecord&);
  // All files of a finished run, as many as can be written, the smallest first. Throws FolderError,
  // which says what is missing and what is kept.
  void write_all(const RunRecord&);
  // Any other file of a run, replaced as a whole. Throws FolderError.
  void write(const std::filesystem::path& name, const std::string& text, bool synced);
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  RunFolder(std::filesystem::path, bool created);
  void write_histograms(const RunRecord&);

  std::filesystem::path path_;
  bool created_ = false;
  bool used_ = false;  // something was to be written
  Descriptor claim_;
  std::size_t kept_cells_ = 0;  // in run.json, as it is now
};

// Where with_default_name() begins to look.
std::filesystem::path default_run_folder();

// A run folder, or the path of its run.json. Throws RecordError, which names the file.
RunRecord read_run(const std::filesystem::path&);

}  // namespace echolab::harness
