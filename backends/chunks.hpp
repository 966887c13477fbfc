// Receive buffers lent out one at a time, most recently used first, so that they stay in cache. One
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "backends/outbox.hpp"

namespace echolab {

class Chunks final : public Pin::Owner {
 public:
  static constexpr std::size_t kSize = 64 * 1024;  // bytes; a whole 64 KiB message in one read
  static constexpr std::uint32_t kNone = UINT32_MAX;

  // The chunk is the caller's until give_back(), or until the last Pin on it is gone.
  std::uint32_t take() {
    if (free_.empty()) {
      free_.push_back(static_cast<std::uint32_t>(chunks_.size()));
      chunks_.push_back({std::make_unique_for_overwrite<std::byte[]>(kSize), 0});
    }
    const std::uint32_t chunk = free_.back();
    free_.pop_back();
    return chunk;
  }
  void give_back(std::uint32_t chunk) { free_.push_back(chunk); }
  [[nodiscard]] std::byte* data(std::uint32_t chunk) const { return chunks_[chunk].data.get(); }

  void pin(std::uint32_t chunk) noexcept override { ++chunks_[chunk].pins; }
  void unpin(std::uint32_t chunk) noexcept override {
    if (--chunks_[chunk].pins == 0) give_back(chunk);
  }

 private:
  struct Chunk {
    std::unique_ptr<std::byte[]> data;
    std::uint32_t pins;
  };
  std::vector<Chunk> chunks_;
  std::vector<std::uint32_t> free_;
};

}  // namespace echolab
