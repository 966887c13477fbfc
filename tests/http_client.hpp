// The smallest HTTP client that tests of server programs need: one request after the other on one
// connection, answers with a Content-Length.
#pragma once

#include <fmt/format.h>

#include <charconv>
#include <stdexcept>
#include <string>
#include <string_view>

#include "tests/world.hpp"

namespace echolab::test {

struct HttpReply {
  unsigned status = 0;
  std::string head;  // status line and fields, with their CRLFs
  std::string body;
  // Of the first field of that name, spelled as the server spells it; empty if there is none.
  [[nodiscard]] std::string field(const std::string& name) const {
    const std::size_t at = head.find("\r\n" + name + ": ");
    if (at == head.npos) return {};
    const std::size_t first = at + name.size() + 4;
    return head.substr(first, head.find("\r\n", first) - first);
  }
};

class HttpClient {
 public:
  explicit HttpClient(std::unique_ptr<Peer> peer) : peer_(std::move(peer)) {
    if (!peer_) throw std::runtime_error("refused");
  }

  void send(std::string_view method, std::string_view target, std::string_view body = {},
            std::string_view fields = {}) {
    peer_->send(
        blob_of(fmt::format("{} {} HTTP/1.1\r\nHost: here\r\nContent-Length: {}\r\n{}\r\n{}",
                            method, target, body.size(), fields, body)));
  }
  HttpReply receive() {
    HttpReply reply;
    while (!reply.head.ends_with("\r\n\r\n")) reply.head += text(peer_->read(1));
    const std::string_view code = std::string_view(reply.head).substr(9, 3);
    std::from_chars(code.data(), code.data() + code.size(), reply.status);
    const std::string length = reply.field("Content-Length");
    if (!length.empty()) reply.body = text(peer_->read(std::stoul(length)));
    return reply;
  }
  HttpReply ask(std::string_view method, std::string_view target, std::string_view body = {},
                std::string_view fields = {}) {
    send(method, target, body, fields);
    return receive();
  }
  Peer& peer() { return *peer_; }

 private:
  static std::string text(const Blob& bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  std::unique_ptr<Peer> peer_;
};

}  // namespace echolab::test
