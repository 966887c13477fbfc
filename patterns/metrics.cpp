#include "patterns/metrics.hpp"

#include <fmt/format.h>

namespace echolab::patterns {

void MetricsText::add(std::string_view name, Type type, std::string_view help, std::uint64_t value,
                      std::string_view labels) {
  if (name != last_) {
    last_ = name;
    text_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name,
                         type == Type::counter ? "counter" : "gauge");
  }
  if (labels.empty()) {
    text_ += fmt::format("{} {}\n", name, value);
  } else {
    text_ += fmt::format("{}{{{}}} {}\n", name, labels, value);
  }
}

}  // namespace echolab::patterns
