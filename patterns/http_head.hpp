// The head of an answer (RFC 9112, 4 and 6) as bytes, with the fields that the connection adds.
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <string_view>

#include "patterns/http.hpp"

namespace echolab::patterns {

struct HeadFacts {
  std::chrono::system_clock::time_point now;
  std::optional<std::size_t> length;  // Content-Length
  bool chunked = false;
  std::string_view connection = {};  // the value of Connection; empty: none
};
void write_text(Out& out, std::string_view text);
void write_chunk(Out& out, std::string_view piece);  // RFC 9112, 7.1; not for an empty one
void write_head(Out& out, const Response& head, const HeadFacts& facts);
// 101 (RFC 9110, 15.2.2). The handler names the protocol by Upgrade.
void write_upgrade_head(Out& out, const Response& head);
bool has_body(unsigned status);  // RFC 9110, 6.4.1

}  // namespace echolab::patterns
