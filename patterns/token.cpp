#include "patterns/token.hpp"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <new>
#include <utility>

namespace echolab::patterns {
namespace {

constexpr std::byte kVersion{1};
constexpr std::size_t kPayload = 1 + 16 + 8 + 8;
constexpr std::size_t kMac = 32;
using Sealed = std::array<std::byte, kPayload + kMac>;
constexpr std::size_t kEncoded = (sizeof(Sealed) * 8 + 5) / 6;

constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

std::string encode(const Sealed& bytes) {
  std::string text;
  std::uint32_t bits = 0;
  int have = 0;
  for (const std::byte b : bytes) {
    bits = bits << 8 | std::to_integer<std::uint32_t>(b);
    for (have += 8; have >= 6; have -= 6) text += kAlphabet[bits >> (have - 6) & 63];
  }
  if (have > 0) text += kAlphabet[bits << (6 - have) & 63];
  return text;
}

// Strict, so that a token has one spelling: the bits that are left over must be zero.
bool decode(std::string_view text, Sealed& bytes) {
  if (text.size() != kEncoded) return false;
  std::uint32_t bits = 0;
  int have = 0;
  std::size_t size = 0;
  for (const char c : text) {
    const std::size_t digit = kAlphabet.find(c);
    if (digit == kAlphabet.npos) return false;
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    have += 6;
    if (have >= 8) {
      have -= 8;
      bytes[size++] = static_cast<std::byte>(bits >> have & 255);
    }
  }
  return (bits & ((1U << have) - 1)) == 0;
}

std::array<std::byte, kMac> mac_of(Bytes payload, const TokenKey& key) {
  std::array<std::byte, kMac> mac;
  unsigned size = kMac;
  if (HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
           reinterpret_cast<const unsigned char*>(payload.data()), payload.size(),
           reinterpret_cast<unsigned char*>(mac.data()), &size) == nullptr) {
    throw std::bad_alloc();  // the one way in which it fails
  }
  return mac;
}

void put(std::uint64_t value, std::byte* to) {
  for (int i = 0; i < 8; ++i) to[i] = static_cast<std::byte>(value >> (56 - 8 * i) & 255);
}

std::uint64_t get(const std::byte* from) {
  std::uint64_t value = 0;
  for (int i = 0; i < 8; ++i) value = value << 8 | std::to_integer<std::uint64_t>(from[i]);
  return value;
}

class TokenSessions final : public SessionStore {
 public:
  TokenSessions(const SessionLimits& limits, RandomSource random, const TokenKey& key,
                const WallClock& clock)
      : ttl_(std::chrono::duration_cast<std::chrono::seconds>(limits.ttl)),
        random_(std::move(random)),
        key_(key),
        clock_(clock) {}
  ~TokenSessions() override { OPENSSL_cleanse(key_.data(), key_.size()); }

  void ask(SessionRequest request, Answer& answer) override {
    answer.send(respond(request.verb, outcome(request, answer.now())));
  }

 private:
  SessionOutcome outcome(const SessionRequest& request, Time steady) {
    using Verb = SessionRequest::Verb;
    const auto now = static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::seconds>(clock_.at(steady).time_since_epoch())
            .count());
    Token token;
    if (request.verb == Verb::create) {
      random_(token.session);
    } else {
      const std::optional<Token> given = unseal(request.id, key_);
      if (!given || given->expires <= now) return {SessionOutcome::Error::unauthorized, {}, 0};
      token = *given;
    }
    if (request.verb == Verb::read) return {SessionOutcome::Error::none, request.id, token.count};
    if (request.verb == Verb::increment) ++token.count;
    token.expires = now + static_cast<std::uint64_t>(ttl_.count());
    return {SessionOutcome::Error::none, seal(token, key_), token.count};
  }

  const std::chrono::seconds ttl_;
  const RandomSource random_;
  TokenKey key_;
  const WallClock clock_;
};

}  // namespace

std::string seal(const Token& token, const TokenKey& key) {
  Sealed bytes;
  bytes[0] = kVersion;
  std::copy(token.session.begin(), token.session.end(), bytes.begin() + 1);
  put(token.count, bytes.data() + 17);
  put(token.expires, bytes.data() + 25);
  const auto mac = mac_of(Bytes(bytes).first(kPayload), key);
  std::copy(mac.begin(), mac.end(), bytes.begin() + kPayload);
  return encode(bytes);
}

std::optional<Token> unseal(std::string_view text, const TokenKey& key) {
  Sealed bytes;
  if (!decode(text, bytes)) return std::nullopt;
  // Before anything is read of it, and in constant time: how long it takes must not tell how much
  // of a guess was right.
  const auto mac = mac_of(Bytes(bytes).first(kPayload), key);
  if (CRYPTO_memcmp(mac.data(), bytes.data() + kPayload, kMac) != 0) return std::nullopt;
  if (bytes[0] != kVersion) return std::nullopt;
  Token token;
  std::copy_n(bytes.begin() + 1, token.session.size(), token.session.begin());
  token.count = get(bytes.data() + 17);
  token.expires = get(bytes.data() + 25);
  return token;
}

std::unique_ptr<SessionStore> make_token_sessions(const SessionLimits& limits, RandomSource random,
                                                  const TokenKey& key, const WallClock& clock) {
  return std::make_unique<TokenSessions>(limits, std::move(random), key, clock);
}

}  // namespace echolab::patterns
