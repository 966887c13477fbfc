#include "harness/verdict_svg.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "harness/markup.hpp"
#include "harness/table.hpp"
#include "harness/verdicts.hpp"

namespace echolab::harness {
namespace {

constexpr std::size_t kHeadlineBytes = 64;
constexpr std::size_t kMostCells = 4;  // more would be a table, and that exists

// Pixels. The axis ends where the columns of text begin.
constexpr double kWidth = 860, kMargin = 20;
constexpr double kAxisLeft = 165, kAxisRight = 482;
constexpr double kRatioColumn = 506, kVerdictColumn = 664, kCpuColumn = kWidth - kMargin;
constexpr double kRowHeight = 20, kCellHead = 24, kCellGap = 12, kLine = 17;  // heights
constexpr double kTick = 34;  // two labels of the axis are at least so far apart
// Characters that have room: in the first column, in a whole line.
constexpr std::size_t kNameLength = 20, kLineLength = 130;

// Those of the report's page.
struct Colours {
  const char *paper, *text, *muted, *line, *band, *faster, *slower;
};
constexpr Colours kLight{"#fcfcfb", "#1c2026", "#626973", "#e2e4e8",
                         "#eceef1", "#1763b6", "#b84a0a"};
constexpr Colours kDark{"#14171a", "#e2e5e9", "#98a0aa", "#2b3036",
                        "#23272c", "#79b4f7", "#f29a5c"};

// What XML may hold: no control characters, no bytes that are no UTF-8, neither U+FFFE nor U+FFFF;
// cut to its room.
std::string xml_text(const std::string& text, std::size_t room) {
  std::string repaired = nlohmann::json::parse(
      nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  for (const char* wrong : {"\uFFFE", "\uFFFF"}) {
    for (std::size_t at = 0; (at = repaired.find(wrong, at)) != std::string::npos;) {
      repaired.replace(at, 3, "\uFFFD");
    }
  }
  std::string out;
  std::size_t characters = 0;
  for (const char c : repaired) {
    const auto byte = static_cast<unsigned char>(c);
    const bool begins = (byte & 0xc0) != 0x80;  // the others go on with a character
    if (begins && ++characters > room) return markup_text(out) + "\u2026";
    out += byte < 0x20 || byte == 0x7f ? ' ' : c;
  }
  return markup_text(out);
}

struct Entry {
  const Result* result = nullptr;
  bool baseline = false;
  const Judgement* judgement = nullptr;  // null: none
  std::optional<double> ratio;           // absent: not measured
};

std::vector<Entry> entries_of(const CellRecord& cell, const Plan& plan) {
  std::vector<Entry> rows;
  for (const Result& result : cell.results) {
    Entry entry{&result, result.variant == plan.baseline, nullptr, result.summary.ratio_cpu};
    if (result.verdicts.cpu) {
      entry.judgement = &*result.verdicts.cpu;
      entry.ratio = entry.judgement->ratio;
    }
    if (!entry.ratio || !(*entry.ratio > 0)) entry.ratio.reset();
    rows.push_back(entry);
  }
  return rows;
}

// The shaded share of a cell: what its variants are judged against. The second copy is what that
// comes from, and no variant.
std::optional<double> delta_of(const std::vector<Entry>& rows) {
  for (const Entry& entry : rows) {
    if (entry.judgement != nullptr && !entry.result->variant.ends_with(kAgain)) {
      return entry.judgement->delta;
    }
  }
  return std::nullopt;
}

bool any_judged(const std::vector<std::vector<Entry>>& cells) {
  return std::any_of(cells.begin(), cells.end(),
                     [](const std::vector<Entry>& rows) { return delta_of(rows).has_value(); });
}

// A logarithmic axis that has room for everything.
class Axis {
 public:
  explicit Axis(const std::vector<std::vector<Entry>>& cells) {
    for (const std::vector<Entry>& rows : cells) {
      const double delta = std::min(delta_of(rows).value_or(0), 0.5);
      for (const double ratio : {1 - delta, 1 + delta}) include(ratio);
      for (const Entry& entry : rows) {
        if (entry.ratio) include(*entry.ratio);
        if (entry.judgement == nullptr || !entry.judgement->low || !entry.judgement->high) continue;
        include(*entry.judgement->low);
        include(*entry.judgement->high);
      }
    }
    const double room = (high_ - low_) * 0.04;  // on either side, for marks
    low_ -= room;
    high_ += room;
  }
  [[nodiscard]] double x(double ratio) const {
    const double at = (std::log(ratio) - low_) / (high_ - low_);
    return kAxisLeft + std::clamp(at, 0.0, 1.0) * (kAxisRight - kAxisLeft);
  }
  // Ratios to print, from 1 on in both directions as far as there is room for them.
  [[nodiscard]] std::vector<double> ticks() const {
    constexpr double kAbove[] = {1.1, 1.2, 1.5, 2, 3, 4, 5, 7, 10, 20, 50, 100};
    constexpr double kBelow[] = {0.9, 0.8, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01};
    std::vector<double> out{1};
    const auto go = [&](const auto& candidates) {
      double last = 1;
      for (const double ratio : candidates) {
        const double at = std::log(ratio);
        if (at < low_ || at > high_ || std::abs(x(ratio) - x(last)) < kTick) continue;
        out.push_back(ratio);
        last = ratio;
      }
    };
    go(kAbove);
    go(kBelow);
    return out;
  }

 private:
  void include(double ratio) {
    if (!(ratio > 0)) return;
    low_ = std::min(low_, std::log(ratio));
    high_ = std::max(high_, std::log(ratio));
  }
  // At least a tenth to both sides.
  double low_ = std::log(0.9), high_ = std::log(1.1);
};

class Drawing {
 public:
  explicit Drawing(const RunRecord& run) : run_(run) {
    for (const CellRecord* cell : headline_cells(run)) {
      cells_.push_back(cell);
      entries_.push_back(entries_of(*cell, run.plan));
    }
  }
  std::string draw(const Colours& colours) {
    text(kMargin, 32, "title", "start",
         "Server CPU per request, as a ratio to " + xml_text(run_.plan.baseline, kLineLength));
    y_ = 53;
    for (const std::string& line : remarks()) {
      text(kMargin, y_, "muted", "start", line);
      y_ += kLine;
    }
    if (!cells_.empty()) chart();
    y_ += kCellGap + kLine;
    text(kMargin, y_, "small", "start", xml_text(origin(), kLineLength));
    return document(colours);
  }

 private:
  void text(double x, double y, const char* style, const char* anchor, const std::string& content) {
    body_ +=
        fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"{}\" text-anchor=\"{}\">{}</text>\n",
                    x, y, style, anchor, content);
  }
  void line(double x1, double y1, double x2, double y2, const char* style) {
    body_ += fmt::format(
        "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" class=\"{}\"/>\n", x1, y1,
        x2, y2, style);
  }

  // What a reader must know before the first dot.
  [[nodiscard]] std::vector<std::string> remarks() const {
    if (cells_.empty()) return {"Empty run: nothing was measured."};
    std::vector<std::string> out;
    if (any_judged(entries_)) {
      out.emplace_back(
          "Median over blocks of fresh processes, with its 95 % interval; less is better.");
      out.push_back(
          fmt::format("Shaded: differences that do not matter, or are no larger than those of two "
                      "copies of {}.",
                      xml_text(run_.plan.baseline, kNameLength)));
    } else if (run_.plan.quick) {
      out.emplace_back("Quick run: numbers, never a verdict. Hollow dots may be noise.");
    } else {
      out.emplace_back(
          "No verdicts: this run has no blocks of fresh processes to judge by. Hollow dots may be "
          "noise.");
    }
    if (run_.partial) out.emplace_back("Partial run: what is here was measured, the rest was not.");
    return out;
  }

  void chart() {
    const Axis axis(entries_);
    y_ += 12;
    text(kRatioColumn, y_, "small", "start", any_judged(entries_) ? "ratio [95 %]" : "ratio");
    if (any_judged(entries_)) text(kVerdictColumn, y_, "small", "start", "verdict");
    text(kCpuColumn, y_, "small", "end", "CPU \u00b5s/request");
    for (const double ratio : axis.ticks()) {
      text(axis.x(ratio), y_, "small", "middle", fmt::format("{}\u00d7", ratio));
    }
    for (std::size_t i = 0; i < cells_.size(); ++i) cell(*cells_[i], entries_[i], axis);
  }

  void cell(const CellRecord& cell, const std::vector<Entry>& rows, const Axis& axis) {
    y_ += kCellGap + kCellHead / 2;
    text(kMargin, y_, "head", "start", cell_title(cell.shape));
    y_ += kCellHead / 2;
    const double bottom = y_ + kRowHeight * static_cast<double>(rows.size());
    if (const std::optional<double> delta = delta_of(rows)) {
      const double left = axis.x(std::max(1 - *delta, 1e-9)), right = axis.x(1 + *delta);
      body_ += fmt::format(
          "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" class=\"band\"/>\n",
          left, y_, right - left, bottom - y_);
    }
    for (const double ratio : axis.ticks()) {
      line(axis.x(ratio), y_, axis.x(ratio), bottom, ratio == 1 ? "one" : "grid");
    }
    for (const Entry& one : rows) row(one, axis);
    description_ += fmt::format("{}: ", cell_title(cell.shape));
    for (const Entry& one : rows) description_ += described(one);
  }

  void row(const Entry& entry, const Axis& axis) {
    const Result& result = *entry.result;
    const double middle = y_ + kRowHeight / 2, base = middle + 4;
    y_ += kRowHeight;
    const char* style = style_of(entry);
    text(kMargin, base, result.variant.ends_with(kAgain) ? "muted" : "name", "start",
         xml_text(result.variant, kNameLength));
    const std::optional<double>& cpu = result.summary.server_cpu_us_per_request;
    text(kCpuColumn, base, cpu ? "name" : "muted", "end", figure(cpu));
    if (!result.error.empty()) return text(kRatioColumn, base, "muted", "start", "failed");
    if (entry.baseline) {
      mark(entry, axis.x(1), middle);
      return text(kRatioColumn, base, "muted", "start", "baseline");
    }
    if (!entry.ratio) return text(kRatioColumn, base, "muted", "start", "-");
    if (entry.judgement != nullptr && entry.judgement->low && entry.judgement->high) {
      body_ += fmt::format("<g class=\"{}\">", style);
      line(axis.x(*entry.judgement->low), middle, axis.x(*entry.judgement->high), middle,
           "interval");
      body_ += "</g>\n";
    }
    mark(entry, axis.x(*entry.ratio), middle);
    if (entry.judgement == nullptr) {
      return text(kRatioColumn, base, "muted", "start", fmt::format("{:.3f}", *entry.ratio));
    }
    text(kRatioColumn, base, entry.judgement->verdict == Verdict::none ? "muted" : "name", "start",
         interval_text(*entry.judgement));
    text(kVerdictColumn, base, style, "start", short_verdict(*entry.judgement));
  }

  // Told apart by shape as well as by colour.
  void mark(const Entry& entry, double x, double y) {
    const Verdict verdict = entry.judgement != nullptr ? entry.judgement->verdict : Verdict::none;
    std::string shape;
    if (entry.baseline || verdict == Verdict::equivalent) {
      shape = fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\"/>", x, y);
    } else if (verdict == Verdict::none) {
      shape = fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.7\" class=\"hollow\"/>", x, y);
    } else {
      const int to = verdict == Verdict::slower ? 1 : -1;
      shape = fmt::format("<path d=\"M{:.1f} {:.1f}l{} 5v-10z\"/>", x + 5 * to, y, -9 * to);
    }
    body_ += fmt::format("<g class=\"{}\">{}</g>\n", style_of(entry), shape);
  }

  static const char* style_of(const Entry& entry) {
    if (entry.baseline) return "name";
    switch (entry.judgement != nullptr ? entry.judgement->verdict : Verdict::none) {
      case Verdict::faster:
        return "faster";
      case Verdict::slower:
        return "slower";
      case Verdict::equivalent:
        return "name";
      case Verdict::none:
        break;
    }
    return "muted";
  }

  static const char* short_verdict(const Judgement& one) {
    return one.why.starts_with("too noisy") ? "too noisy" : name_of(one.verdict);
  }

  // For who does not see: one row in words.
  static std::string described(const Entry& entry) {
    const Result& result = *entry.result;
    const std::string name = xml_text(result.variant, kLineLength);
    const std::optional<double>& cpu = result.summary.server_cpu_us_per_request;
    const std::string cost = cpu ? fmt::format(", {} \u00b5s", figure(cpu)) : "";
    if (!result.error.empty()) return name + " failed. ";
    if (entry.baseline) return name + " is the baseline" + cost + ". ";
    if (!entry.ratio) return name + " has no ratio" + cost + ". ";
    if (entry.judgement == nullptr) return fmt::format("{} {:.3f}{}. ", name, *entry.ratio, cost);
    return fmt::format("{} {}{}: {}. ", name, interval_text(*entry.judgement), cost,
                       xml_text(verdict_text(*entry.judgement), kLineLength));
  }

  [[nodiscard]] std::string origin() const {
    const nlohmann::json& env = run_.environment;
    return fmt::format("{}, {} CPUs; Linux {}; {} of echolab, {}", fact(env, "/machine/cpu_model"),
                       fact(env, "/machine/cpus_online"), fact(env, "/kernel/release"),
                       run_.plan.quick ? "a quick run" : "a run", run_.started.substr(0, 10));
  }

  [[nodiscard]] std::string document(const Colours& c) const {
    const double height = y_ + kMargin;
    std::string out = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1:.0f}\" "
        "viewBox=\"0 0 {0} {1:.0f}\" role=\"img\" aria-labelledby=\"title description\">\n"
        "<title id=\"title\">Server CPU per request, as a ratio to {2}</title>\n"
        "<desc id=\"description\">{3}{4}</desc>\n",
        kWidth, height, xml_text(run_.plan.baseline, kLineLength),
        fmt::format("{} ", fmt::join(remarks(), " ")), description_);
    out += fmt::format(
        "<style>\n"
        "text {{ font: 12.5px system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, "
        "sans-serif; fill: {1}; font-variant-numeric: tabular-nums; }}\n"
        ".title {{ font-size: 17px; font-weight: 650; }} .head {{ font-weight: 650; }}\n"
        ".small {{ font-size: 11.5px; fill: {2}; }}\n"
        ".name {{ fill: {1}; color: {1}; }} .muted {{ fill: {2}; color: {2}; }}\n"
        ".faster {{ fill: {5}; color: {5}; }} .slower {{ fill: {6}; color: {6}; }}\n"
        ".hollow {{ fill: {0}; stroke: currentColor; stroke-width: 1.5; }}\n"
        ".interval {{ stroke: currentColor; stroke-width: 2; }}\n"
        ".grid {{ stroke: {3}; }} .one {{ stroke: {2}; }} .band {{ fill: {4}; }}\n"
        "</style>\n",
        c.paper, c.text, c.muted, c.line, c.band, c.faster, c.slower);
    out += fmt::format("<rect width=\"{}\" height=\"{:.0f}\" rx=\"6\" fill=\"{}\"/>\n", kWidth,
                       height, c.paper);
    return out + body_ + "</svg>\n";
  }

  const RunRecord& run_;
  std::vector<const CellRecord*> cells_;
  std::vector<std::vector<Entry>> entries_;
  double y_ = 0;
  std::string body_, description_;
};

}  // namespace

std::vector<const CellRecord*> headline_cells(const RunRecord& run) {
  std::vector<const CellRecord*> chosen, all;
  for (const CellRecord& cell : run.cells) {
    all.push_back(&cell);
    const CellShape& shape = cell.shape;
    if (shape.size == kHeadlineBytes && shape.depth == 1 && shape.rate == 0) {
      chosen.push_back(&cell);
    }
  }
  if (chosen.empty()) chosen = all;
  chosen.resize(std::min(chosen.size(), kMostCells));
  return chosen;
}

std::string verdict_svg(const RunRecord& run, Theme theme) {
  return Drawing(run).draw(theme == Theme::light ? kLight : kDark);
}

}  // namespace echolab::harness
