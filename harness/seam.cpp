#include "harness/seam.hpp"

#include <fmt/format.h>

#include <cmath>

#include "harness/controls.hpp"
#include "harness/verdicts.hpp"

namespace echolab::harness {
namespace {

std::string unfit_for_seam(const Result& row) {
  if (!row.error.empty()) return row.variant + " failed";
  return row.no_verdict.empty() ? "" : fmt::format("{}: {}", row.variant, row.no_verdict);
}

Seam seam_between(const Result& backend, const Result& control) {
  Seam seam;
  seam.backend = backend.variant;
  seam.control = control.variant;
  seam.why = unfit_for_seam(backend);
  if (seam.why.empty()) seam.why = unfit_for_seam(control);
  const std::vector<double> ratios = block_ratios(backend, control, verdict_metrics().front());
  if (seam.why.empty() && ratios.empty()) seam.why = "no round has a kept slice of both";
  if (!seam.why.empty()) return seam;
  const Estimate estimate = estimate_median(ratios);
  seam.blocks = estimate.samples;
  seam.ratio = std::exp(estimate.center);
  if (const std::optional<Interval> interval = estimate.interval()) {
    seam.low = std::exp(interval->low);
    seam.high = std::exp(interval->high);
  }
  return seam;
}

std::string seam_text(const Seam& seam) {
  if (!seam.ratio) {
    return fmt::format("what {} costs more than {} is not known: {}", seam.backend, seam.control,
                       seam.why);
  }
  const std::string interval =
      seam.low && seam.high ? fmt::format(" [{:.2f}, {:.2f}]", *seam.low, *seam.high) : "";
  return fmt::format("{} costs {:.2f}x{} of {}'s CPU per request", seam.backend, *seam.ratio,
                     interval, seam.control);
}

}  // namespace

std::vector<Seam> seams_of(const CellRecord& cell, const Plan& plan) {
  std::vector<Seam> out;
  for (const Contender& contender : plan.contenders) {
    if (!contender.control() || contender.again()) continue;
    const Result* control = cell.row(contender.name);
    const Result* backend = cell.row(control_named(contender.name)->backend);
    if (control != nullptr && backend != nullptr) out.push_back(seam_between(*backend, *control));
  }
  return out;
}

std::string seam_line(const CellRecord& cell) {
  std::vector<std::string> texts;
  for (const Seam& seam : cell.seams) texts.push_back(seam_text(seam));
  return texts.empty() ? "" : fmt::format("seam: {}", fmt::join(texts, "; "));
}

}  // namespace echolab::harness
