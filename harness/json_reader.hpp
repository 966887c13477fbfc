// Reading JSON that somebody else may have written: every access checks presence and type, and an
// error names the place ("cells[2].results[0].slices.requests: expected whole numbers").
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace echolab::harness {

struct JsonError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class JsonReader {
 public:
  explicit JsonReader(const nlohmann::json& value, std::string path = {})
      : value_(&value), path_(std::move(path)) {}

  [[nodiscard]] JsonReader operator[](const char* key) const {
    expect(value_->is_object(), "an object");
    const auto it = value_->find(key);
    const std::string path = path_.empty() ? key : path_ + "." + key;
    if (it == value_->end()) throw JsonError(path + ": missing");
    return JsonReader(*it, path);
  }
  // For members that were added later: files written before lack them.
  [[nodiscard]] bool has(const char* name) const { return object().contains(name); }
  [[nodiscard]] std::vector<JsonReader> items() const {
    expect(value_->is_array(), "a list");
    std::vector<JsonReader> out;
    out.reserve(value_->size());
    for (const auto& item : *value_) {
      out.emplace_back(item, fmt::format("{}[{}]", path_, out.size()));
    }
    return out;
  }
  [[nodiscard]] std::uint64_t whole(std::uint64_t at_most = UINT64_MAX) const {
    expect(value_->is_number_unsigned(), "a whole number, not negative");
    const auto v = value_->get<std::uint64_t>();
    if (v > at_most) throw JsonError(fmt::format("{}: {} is more than {}", path_, v, at_most));
    return v;
  }
  // A whole column at once: no path is built for values that are right.
  [[nodiscard]] std::vector<std::uint64_t> wholes() const {
    expect(value_->is_array(), "a list");
    std::vector<std::uint64_t> out;
    out.reserve(value_->size());
    for (const auto& item : *value_) {
      expect(item.is_number_unsigned(), "whole numbers, not negative");
      out.push_back(item.get<std::uint64_t>());
    }
    return out;
  }
  [[nodiscard]] std::vector<std::int64_t> integers() const {
    expect(value_->is_array(), "a list");
    std::vector<std::int64_t> out;
    out.reserve(value_->size());
    for (const auto& item : *value_) {
      expect(item.is_number_integer(), "whole numbers");
      if (item.is_number_unsigned() && item.get<std::uint64_t>() > INT64_MAX) fail("too large");
      out.push_back(item.get<std::int64_t>());
    }
    return out;
  }
  [[nodiscard]] std::vector<double> numbers() const {
    expect(value_->is_array(), "a list");
    std::vector<double> out;
    out.reserve(value_->size());
    for (const auto& item : *value_) {
      expect(item.is_number(), "numbers");
      out.push_back(item.get<double>());
    }
    return out;
  }
  [[nodiscard]] std::vector<std::string> texts() const {
    std::vector<std::string> out;
    for (const JsonReader& item : items()) out.push_back(item.text());
    return out;
  }
  [[nodiscard]] double number() const {
    expect(value_->is_number(), "a number");
    return value_->get<double>();
  }
  [[nodiscard]] std::optional<double> number_or_null() const {
    if (value_->is_null()) return std::nullopt;
    return number();
  }
  [[nodiscard]] std::string text() const {
    expect(value_->is_string(), "a text");
    return value_->get<std::string>();
  }
  [[nodiscard]] bool flag() const {
    expect(value_->is_boolean(), "true or false");
    return value_->get<bool>();
  }
  [[nodiscard]] bool null() const { return value_->is_null(); }
  [[nodiscard]] const nlohmann::json& object() const {
    expect(value_->is_object(), "an object");
    return *value_;
  }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[noreturn]] void fail(const std::string& why) const { throw JsonError(path_ + ": " + why); }

 private:
  void expect(bool right, const char* what) const {
    if (!right) {
      throw JsonError(fmt::format("{}: expected {}", path_.empty() ? "document" : path_, what));
    }
  }

  const nlohmann::json* value_;
  std::string path_;
};

// A name that is there twice would count twice, or stand for two things.
template <class List, class NameOf>
void refuse_twins(const JsonReader& in, const List& list, NameOf name_of) {
  std::set<std::string> seen;
  for (const auto& item : list) {
    const std::string name = name_of(item);
    if (!seen.insert(name).second) in.fail(fmt::format("'{}' is there twice", name));
  }
}

}  // namespace echolab::harness
