// A handler with every way to answer, and a context whose clock stands still: what the tests and
// the fuzzer of the HTTP session serve.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "patterns/http.hpp"

namespace echolab::test {

using namespace std::chrono_literals;

// Sun, 06 Nov 1994 08:49:37 GMT
inline constexpr std::chrono::system_clock::time_point kFrozen{std::chrono::seconds(784111777)};
inline constexpr const char* kDate = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

class HttpProbe final : public patterns::Handler {
 public:
  explicit HttpProbe(Duration park = 5ms) : park_(park) {}

  std::atomic<int> handled = 0;  // requests
  std::atomic<int> waiting = 0;  // Pendings that live
  std::atomic<int> asked_at_eof = 0;

  void handle(const patterns::Request& request, patterns::Answer& answer) override {
    ++handled;
    const std::string_view path = request.path;
    if (path == "/plaintext") return answer.send(patterns::text(200, "Hello, World!"));
    if (path == "/echo") return answer.send({200, {}, std::string(request.body)});
    if (path == "/see") return answer.send({200, {}, all_of(request)});
    if (path == "/big") return answer.send({200, {}, std::string(size_of(request), 'x')});
    if (path == "/status") {
      return answer.send({static_cast<unsigned>(size_of(request)), {}, "no body of a 204 or 304"});
    }
    if (path == "/split") return answer.send({200, {{"X-Echo", "a\r\nSet-Cookie: b"}}, ""});
    if (path == "/silent") return;
    if (path == "/throw") throw std::runtime_error("a secret of the server");
    if (path == "/park" || path == "/call") return park(path == "/call", answer);
    if (path == "/stream" || path == "/slow") return stream(path == "/slow", answer);
    if (path == "/stream-throw") {
      answer.stream({200, {}, ""});
      answer.piece("begun");
      throw std::runtime_error("a secret of the server");
    }
    if (path == "/close") {
      answer.stream({200, {}, ""});
      answer.piece("cut");
      return answer.close();
    }
    if (path == "/upgrade") {
      return answer.upgrade({101, {{"Upgrade", "shout"}}, ""}, std::make_unique<Shout>());
    }
    answer.send(patterns::text(404, "there is nothing here"));
  }

  // What a connection becomes: every byte in upper case.
  class Shout final : public Session {
    void on_open(Out& out, ConnId, Time) override { say(out, "<"); }
    void on_bytes(Out& out, Input input, Time) override {
      for (std::byte& b : input) {
        const auto c = std::to_integer<char>(b);
        if (c >= 'a' && c <= 'z') b = static_cast<std::byte>(c - 'a' + 'A');
      }
      out.forward(input);
    }
    void on_eof(Out& out, Time) override {
      say(out, ">");
      out.close();
    }
    void on_post(Out& out, const Post&, Time) override { say(out, "(post)"); }
    void on_drain(Out& out, Time) override {
      say(out, "(drain)");
      out.close();
    }
    static void say(Out& out, std::string_view text) { out.write(std::as_bytes(std::span(text))); }
  };

 private:
  static std::size_t size_of(const patterns::Request& request) {
    std::string n;
    return request.parameter("n", n) ? std::stoul(n) : 0;
  }
  static std::string all_of(const patterns::Request& request) {
    std::string all;
    all.append(request.method).append(" ").append(request.path);
    all.append("?").append(request.query).append(request.http_1_0 ? " 1.0\n" : " 1.1\n");
    for (const patterns::Field& f : request.fields) all += f.name + "=" + f.value + "\n";
    return all.append(request.body);
  }

  // Answers on the first thing that happens, and says which.
  class Parked final : public patterns::Pending {
   public:
    explicit Parked(HttpProbe& probe) : probe_(probe) { ++probe_.waiting; }
    ~Parked() override { --probe_.waiting; }
    void on_post(patterns::Answer& a, const Post&) override { a.send(patterns::text(200, "post")); }
    void on_deadline(patterns::Answer& a) override { a.send(patterns::text(200, "deadline")); }
    void on_reply(patterns::Answer& a, const Reply& reply) override {
      if (reply.error) return a.send(patterns::text(502, "the upstream failed"));
      a.send({200, {}, {reinterpret_cast<const char*>(reply.bytes.data()), reply.bytes.size()}});
    }
    void on_eof(patterns::Answer&) override { ++probe_.asked_at_eof; }

   private:
    HttpProbe& probe_;
  };
  void park(bool calls, patterns::Answer& answer) {
    if (calls) {
      constexpr std::string_view kRequest = "ping";
      answer.call(upstream_, 7, std::as_bytes(std::span(kRequest)), kRequest.size(), 1s);
    } else {
      answer.wake_at(answer.now() + park_);
    }
    answer.wait(std::make_unique<Parked>(*this));
  }

  // Three pieces, by both ways, at once or one at a time.
  static void next_piece(patterns::Answer& answer, int piece) {
    if (piece == 1) return answer.piece("one,");
    answer.share(patterns::as_chunk(piece == 2 ? "two," : "three"));
  }
  class Streaming final : public patterns::Pending {
   public:
    Streaming(HttpProbe& probe, Duration step) : probe_(probe), step_(step) { ++probe_.waiting; }
    ~Streaming() override { --probe_.waiting; }
    void on_deadline(patterns::Answer& a) override {
      if (piece_ == 3) return a.finish();
      next_piece(a, ++piece_);
      a.wake_at(a.now() + step_);
    }

   private:
    HttpProbe& probe_;
    Duration step_;
    int piece_ = 1;
  };
  void stream(bool slow, patterns::Answer& answer) {
    answer.stream({200, {{"Content-Type", "text/plain"}}, ""});
    next_piece(answer, 1);
    if (slow) {
      answer.wake_at(answer.now() + park_);
      return answer.wait(std::make_unique<Streaming>(*this, park_));
    }
    next_piece(answer, 2);
    next_piece(answer, 3);
    answer.finish();
  }

  Duration park_;  // how long a request is parked, and between two pieces
  Upstream upstream_{"127.0.0.1", 9};
};

// A server of these: what make_http_session needs, and the service for a backend.
struct HttpServer {
  explicit HttpServer(Duration park = 5ms) : probe(park) {}
  HttpProbe probe;
  patterns::HttpContext context{probe, {}, {kFrozen, {}, true}};
  std::unique_ptr<Session> session() { return patterns::make_http_session(context); }
};

// "200 400": the status of each answer in a connection's output. No body here looks like a head.
inline std::string statuses(const std::string& output) {
  constexpr std::string_view kStart = "HTTP/1.1 ";
  std::string all;
  for (auto at = output.find(kStart); at != std::string::npos; at = output.find(kStart, at + 1)) {
    if (!all.empty()) all += ' ';
    all += output.substr(at + kStart.size(), 3);
  }
  return all;
}

}  // namespace echolab::test
