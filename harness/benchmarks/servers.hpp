// The rows of `harness bench` as Google Benchmarks. A repetition is a block: a fresh server
// process, connected, its bytes verified, warmed up, then loaded in slices that pass the gates or
// are repeated within bounds, by the same runner. An iteration is a request.
//
// One server at a time, so that two rows are not paired slice by slice: for a verdict use `harness
// bench`. The benchmarks of the seam are the exception: they load a backend and the raw control of
// its mechanism in turn.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "harness/bench.hpp"
#include "harness/benchmarks/entry.hpp"
#include "harness/plan.hpp"

namespace echolab::benchmarks {

struct ServerSettings {
  double min_time_s = 0.5;  // of kept slices per repetition, as planned
  harness::PlaceWish place = harness::PlaceWish::automatic;
  std::uint64_t seed = 0;
  std::vector<harness::Contender> more;  // servers beside our own
};

class Servers {
 public:
  // Asks the echo-server beside this program what it has, and starts nothing. Throws ServerError;
  // std::invalid_argument for what a plan refuses (plan.hpp).
  explicit Servers(ServerSettings);

  // Every variant of the catalogue, the raw controls and `more` in every cell of the default
  // matrix, then the seam; those that cannot run here too, to say why. They refer to this object.
  std::vector<Entry> entries();
  // Chooses CPUs. Before any of them runs. Throws UsageError.
  const harness::Preflight& prepare();
  // Of what has run: 1 if any failed, else 3 if any could not run here and none was measured.
  [[nodiscard]] int exit_status() const;

 private:
  struct Variant {
    harness::Contender contender;
    std::string unavailable;  // why it cannot run here; empty if it can
  };
  void add_cells(std::vector<Entry>&, const Variant& variant);
  void add_seam(std::vector<Entry>&, const Variant& variant, const Variant& raw);
  // The last of `variants` is measured; the first is what it is compared with, if there are two.
  void measure(benchmark::State&, const std::vector<Variant>& variants,
               const harness::CellShape& shape);
  void fail(benchmark::State&, const std::string& why);

  ServerSettings settings_;
  std::string program_;
  std::vector<Variant> variants_;  // of the catalogue, then raw controls, then `more`
  std::optional<harness::Preflight> preflight_;
  std::uint64_t runs_ = 0;
  unsigned measured_ = 0, failed_ = 0, unavailable_ = 0;
};

}  // namespace echolab::benchmarks
