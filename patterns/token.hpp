// Sessions in the client's hands: the id is the state, signed, so that any server with the key can
// go on with it, and a restart costs nothing.
//
// What a stateless token cannot do, because nobody remembers which tokens were given out:
//   - revoke: a token is good until it expires, whatever happens meanwhile;
//   - replay: who sends an old token again counts from there again, and gets a second token with
//     the same count; two increments at the same time both give n + 1.
// Where that matters, the state belongs on the server.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "patterns/sessions.hpp"

namespace echolab::patterns {

using TokenKey = std::array<std::byte, 32>;  // as long as the hash (RFC 2104, 3)

// What a token says.
struct Token {
  std::array<std::byte, 16> session{};  // random
  std::uint64_t count = 0;
  std::uint64_t expires = 0;  // seconds since 1970

  friend bool operator==(const Token&, const Token&) = default;
};

// base64url without padding (RFC 4648, 5) of: version (1 byte), session, count and expiry (big
// endian), HMAC-SHA-256 (RFC 2104) of all before it.
std::string seal(const Token&, const TokenKey&);
// Nothing: malformed, of another version, or signed with another key. The expiry is the caller's to
// check.
std::optional<Token> unseal(std::string_view, const TokenKey&);

std::unique_ptr<SessionStore> make_token_sessions(const SessionLimits&, RandomSource,
                                                  const TokenKey&, const WallClock&);

}  // namespace echolab::patterns
