// Prometheus text format 0.0.4: what /metrics answers. Every part of the server adds its own.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace echolab::patterns {

class MetricsText {
 public:
  enum class Type { counter, gauge };
  // The samples of one metric follow each other. `labels` as they stand between braces:
  // policy="conflate"; may be empty.
  void add(std::string_view name, Type type, std::string_view help, std::uint64_t value,
           std::string_view labels = {});
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  std::string text_;
  std::string last_;
};
using MetricsSource = std::function<void(MetricsText&)>;

}  // namespace echolab::patterns
