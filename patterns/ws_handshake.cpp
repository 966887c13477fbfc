#include "patterns/ws_handshake.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <new>

namespace echolab::patterns {
namespace {

// 16 bytes in base64: 22 digits and two of padding (RFC 6455, 4.1).
constexpr std::size_t kKeyDigits = 22;
constexpr std::string_view kGuid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";  // RFC 6455, 1.3

// What a token has beside letters and digits (RFC 9110, 5.6.2).
constexpr std::string_view kTokenSigns = "!#$%&'*+-.^_`|~";

bool is_alphanumeric(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

bool is_key(std::string_view key) {
  return key.size() == kKeyDigits + 2 && key.ends_with("==") &&
         std::all_of(key.begin(), key.begin() + kKeyDigits,
                     [](char c) { return is_alphanumeric(c) || c == '+' || c == '/'; });
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

// Every value of a field; a list may be spread over several.
std::vector<std::string_view> values(const Request& request, std::string_view name) {
  std::vector<std::string_view> found;
  for (const Field& field : request.fields) {
    if (lower(field.name) == lower(name)) found.emplace_back(field.value);
  }
  return found;
}

// "http://Host:80" -> "http://host": what browsers leave out does not count.
std::string without_default_port(std::string_view origin) {
  std::string text = lower(origin);
  for (const auto& [scheme, port] :
       {std::pair<std::string_view, std::string_view>{"http://", ":80"}, {"https://", ":443"}}) {
    if (text.starts_with(scheme) && text.ends_with(port)) text.resize(text.size() - port.size());
  }
  return text;
}

bool same_host(std::string_view origin, std::string_view host) {
  const std::size_t at = origin.find("://");
  if (at == std::string_view::npos) return false;  // also "null"
  const std::string scheme(origin.substr(0, at + 3));
  return without_default_port(origin) == without_default_port(scheme + std::string(host));
}

bool may_connect(const Request& request, const std::vector<std::string>& allowed) {
  const auto origins = values(request, "Origin");
  if (origins.empty()) return true;
  if (origins.size() > 1) return false;
  if (allowed.empty()) return same_host(origins[0], request.field("Host"));
  return std::any_of(allowed.begin(), allowed.end(), [&](const std::string& one) {
    return one == "*" || without_default_port(one) == without_default_port(origins[0]);
  });
}

// Reads token, quoted string and separators of RFC 9110, 5.6.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : rest_(text) {}
  bool take(char c) {
    skip_space();
    if (!rest_.starts_with(c)) return false;
    rest_.remove_prefix(1);
    return true;
  }
  // Empty: there is none.
  std::string token() {
    skip_space();
    const auto end = std::find_if_not(rest_.begin(), rest_.end(), [](char c) {
      return is_alphanumeric(c) || kTokenSigns.find(c) != kTokenSigns.npos;
    });
    const auto n = static_cast<std::size_t>(end - rest_.begin());
    std::string out(rest_.substr(0, n));
    rest_.remove_prefix(n);
    return out;
  }
  // What is quoted must be a token too (RFC 6455, 9.1).
  std::string value() {
    if (!take('"')) return token();
    std::string out = token();
    return take('"') ? out : std::string();
  }
  bool done() {
    skip_space();
    return rest_.empty();
  }

 private:
  void skip_space() {
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\t'))
      rest_.remove_prefix(1);
  }
  std::string_view rest_;
};

struct Offer {
  std::string name;
  struct Parameter {
    std::string name;
    std::optional<std::string> value;
  };
  std::vector<Parameter> parameters;
};

// Nothing: malformed.
std::optional<std::vector<Offer>> parse_offers(std::string_view text) {
  std::vector<Offer> offers;
  Scanner scanner(text);
  while (!scanner.done()) {
    if (scanner.take(',')) continue;  // an empty element
    Offer offer;
    offer.name = scanner.token();
    if (offer.name.empty()) return std::nullopt;
    while (scanner.take(';')) {
      Offer::Parameter parameter{scanner.token(), {}};
      if (parameter.name.empty()) return std::nullopt;
      if (scanner.take('=')) {
        parameter.value = scanner.value();
        if (parameter.value->empty()) return std::nullopt;
      }
      offer.parameters.push_back(std::move(parameter));
    }
    if (!scanner.done() && !scanner.take(',')) return std::nullopt;
    offers.push_back(std::move(offer));
  }
  return offers;
}

bool is_window(const std::string& bits) {  // RFC 7692, 7.1.2: 8 to 15, no leading zero
  return bits == "8" || bits == "9" ||
         (bits.size() == 2 && bits[0] == '1' && bits[1] >= '0' && bits[1] <= '5');
}

// RFC 7692, 7.1. Nothing: an offer that must be declined.
std::optional<std::string> answer_to(const Offer& offer) {
  if (offer.name != "permessage-deflate") return std::nullopt;
  std::string answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
  std::vector<std::string> seen;
  for (const auto& [name, value] : offer.parameters) {
    if (std::find(seen.begin(), seen.end(), name) != seen.end()) return std::nullopt;
    seen.push_back(name);
    if (name == "server_no_context_takeover" || name == "client_no_context_takeover") {
      if (value) return std::nullopt;
    } else if (name == "client_max_window_bits") {
      // What a smaller window makes, the largest reads; nothing is asked of the client.
      if (value && !is_window(*value)) return std::nullopt;
    } else if (name == "server_max_window_bits") {
      // Frames are shared by all receivers, so nobody gets a smaller window.
      if (!value || *value != "15") return std::nullopt;
      answer += "; server_max_window_bits=15";
    } else {
      return std::nullopt;
    }
  }
  return answer;
}

WsHandshake refusal(unsigned status, std::string_view reason) {
  WsHandshake refused{text(status, reason), false};
  if (status == 426) {
    // RFC 9110, 15.5.22 and 7.8; RFC 6455, 4.4
    refused.response.fields.push_back({"Connection", "upgrade"});
    refused.response.fields.push_back({"Upgrade", "websocket"});
    refused.response.fields.push_back({"Sec-WebSocket-Version", "13"});
  }
  return refused;
}

}  // namespace

std::string ws_accept(std::string_view key) {
  const std::string input = std::string(key).append(kGuid);
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned size = 0;
  if (EVP_Digest(input.data(), input.size(), digest.data(), &size, EVP_sha1(), nullptr) != 1) {
    throw std::bad_alloc();  // nothing else can fail
  }
  std::string out(4 * ((size + 2) / 3) + 1, '\0');  // EVP_EncodeBlock writes a NUL behind
  const int n = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()), digest.data(),
                                static_cast<int>(size));
  out.resize(static_cast<std::size_t>(n));
  return out;
}

std::optional<std::string> ws_agree_on_deflate(std::string_view offers) {
  const auto parsed = parse_offers(offers);
  if (!parsed) return std::nullopt;
  for (const Offer& offer : *parsed) {
    if (auto answer = answer_to(offer)) return answer;
  }
  return std::nullopt;
}

WsHandshake ws_handshake(const Request& request, const std::vector<std::string>& origins) {
  // HTTP/1.0 has no Upgrade: there the field is ignored (RFC 9110, 7.8).
  if (request.http_1_0 || !request.lists("Upgrade", "websocket")) {
    return refusal(426, "this is a WebSocket: ask with Upgrade: websocket");
  }
  if (!request.lists("Connection", "upgrade")) {
    return refusal(400, "Connection does not list upgrade");
  }
  const auto versions = values(request, "Sec-WebSocket-Version");
  if (versions.size() != 1 || versions[0] != "13") {
    return refusal(426, "Sec-WebSocket-Version must be 13");
  }
  const auto keys = values(request, "Sec-WebSocket-Key");
  if (keys.size() != 1 || !is_key(keys[0])) {
    return refusal(400, "Sec-WebSocket-Key must be 16 bytes in base64");
  }
  if (!request.body.empty()) return refusal(400, "a WebSocket handshake has no body");
  if (!may_connect(request, origins)) return refusal(403, "Origin is not allowed");

  WsHandshake accepted;
  accepted.response.status = 101;
  accepted.response.fields = {{"Upgrade", "websocket"},
                              {"Sec-WebSocket-Accept", ws_accept(keys[0])}};
  std::string offers;
  for (const std::string_view value : values(request, "Sec-WebSocket-Extensions")) {
    offers.append(offers.empty() ? "" : ",").append(value);
  }
  if (auto answer = ws_agree_on_deflate(offers)) {
    accepted.deflate = true;
    accepted.response.fields.push_back({"Sec-WebSocket-Extensions", std::move(*answer)});
  }
  return accepted;
}

}  // namespace echolab::patterns
