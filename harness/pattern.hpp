// The bytes of a request. Every request has its own, so that a reply that belongs to another
// connection, to another request or to another place in the message is found out.
//
// A message is a row of 64-bit words: word i is key XOR table[i mod 512] XOR block_key(i / 512).
// The key is a bijection of (connection, sequence), so no two requests have the same; the table is
// fixed and pseudo-random, so no two places of a message look alike; the block key goes on where
// the table repeats. Any part of a message can be written or checked by itself, which is why a
// connection needs no send buffer: what a short send left over is written again.
// Cost: one load, one XOR and one store (or compare) a word, in loops that compilers vectorise.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace echolab::harness {

class Pattern {
 public:
  static constexpr std::size_t kTableWords = 512;  // 4 KiB: fits the L1 cache beside the message
  static constexpr unsigned kSequenceBits = 40;    // 10^12 requests a connection
  static constexpr std::uint64_t kMaxConnections = 1ULL << (64 - kSequenceBits);

  explicit Pattern(std::uint64_t seed);

  // Unique to connection (below kMaxConnections) and sequence (below 2^40).
  [[nodiscard]] std::uint64_t key(std::uint64_t connection, std::uint64_t sequence) const {
    return mix(seed_ ^ (connection << kSequenceBits | sequence));
  }
  // Writes `length` bytes of the message, from `offset` on.
  void write(std::byte* to, std::uint64_t key, std::size_t offset, std::size_t length) const;
  // How many bytes from the start are those of the message from `offset` on: `length` if all.
  [[nodiscard]] std::size_t check(const std::byte* from, std::uint64_t key, std::size_t offset,
                                  std::size_t length) const;
  [[nodiscard]] std::byte at(std::uint64_t key, std::size_t offset) const;

  // A bijection of 64-bit words that spreads every input bit over all output bits (the finaliser of
  // splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators").
  static constexpr std::uint64_t mix(std::uint64_t x) {
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
  }

 private:
  static constexpr std::uint64_t block_key(std::uint64_t block) {
    return block == 0 ? 0 : mix(~block);
  }
  [[nodiscard]] std::uint64_t word(std::uint64_t key, std::size_t index) const {
    return key ^ block_key(index / kTableWords) ^ table_[index % kTableWords];
  }

  std::uint64_t seed_;
  std::array<std::uint64_t, kTableWords> table_;
};

}  // namespace echolab::harness
