// Which contenders can run here.
#include <fmt/format.h>

#include <algorithm>

#include "harness/bench.hpp"
#include "harness/controls.hpp"
#include "harness/json_reader.hpp"
#include "harness/process.hpp"
#include "harness/units.hpp"

namespace echolab::harness {

std::vector<VariantRecord> resolve_variants(const Plan& plan, const std::string& program) {
  std::vector<VariantRecord> variants;
  const bool any_own = std::any_of(plan.contenders.begin(), plan.contenders.end(),
                                   [](const Contender& c) { return !c.foreign(); });
  std::vector<std::pair<std::string, std::string>> known;  // name and why it is unavailable
  if (any_own) {
    try {
      const nlohmann::json document = catalogue_with_controls(program);
      for (const JsonReader& v : JsonReader(document)["variants"].items()) {
        known.emplace_back(v["name"].text(), v["unavailable"].text());
      }
    } catch (const JsonError& error) {
      throw std::runtime_error(fmt::format("{} --list --json: {}", program, error.what()));
    }
  }
  for (const Contender& contender : plan.contenders) {
    VariantRecord variant{contender.name, contender.command, "", {}};
    if (!contender.foreign()) {
      const auto found = std::find_if(known.begin(), known.end(), [&](const auto& entry) {
        const std::string& name = entry.first;  // "threads:pool=N" stands for any number
        const bool takes_value = name.ends_with("=N");
        return takes_value ? contender.spec().starts_with(name.substr(0, name.size() - 1))
                           : contender.spec() == name;
      });
      if (found == known.end()) {
        std::vector<std::string> names;
        for (const auto& entry : known) names.push_back(entry.first);
        throw UsageError(fmt::format("unknown backend '{}'; known are {}", contender.name,
                                     fmt::join(names, ", ")));
      }
      variant.unavailable = found->second;
    }
    variants.push_back(std::move(variant));
  }
  return variants;
}

}  // namespace echolab::harness
