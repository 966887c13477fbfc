// What stands in for the world in tests of the hub and what is built on it.
#pragma once

#include <mutex>
#include <vector>

#include "patterns/hub.hpp"

namespace echolab::test {

// Remembers who was rung.
class RecordingPoster final : public Poster {
 public:
  struct Call {
    std::vector<ConnId> who;
    Post post;
  };
  void post(std::span<const ConnId> ids, const Post& post) noexcept override {
    const std::scoped_lock lock(mutex_);
    calls_.push_back({{ids.begin(), ids.end()}, post});
  }
  // Since the last time.
  std::vector<Call> take() {
    const std::scoped_lock lock(mutex_);
    return std::exchange(calls_, {});
  }

 private:
  std::mutex mutex_;
  std::vector<Call> calls_;
};

inline ConnId conn(std::uint32_t slot) {
  return {slot, 1, 0};
}

inline constexpr std::uint32_t kEpoch = 0xabcd1234;
inline constexpr patterns::Hub::Room kAnyRoom = {1'000'000, 1'000'000'000, true};

}  // namespace echolab::test
