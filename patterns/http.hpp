// HTTP/1.1 (RFC 9110, RFC 9112) without I/O: one connection's protocol as a Session. Handlers see
// whole requests, one at a time and in order, and answer at once, later (a parked request), piece
// by piece (a stream), or by turning the connection into another protocol (an upgrade).
//
// One thread at a time, as every session. Views in a Request die when the handler returns.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/session.hpp"

namespace echolab::patterns {

// What a client may make grow, and how long it may take. Each is an option of pattern-server.
struct HttpLimits {
  std::size_t target = 8 * 1024;       // bytes of request line target; longer: 414
  std::size_t header = 16 * 1024;      // bytes of request line and fields; more: 431
  std::size_t fields = 100;            // header fields; more: 431
  std::size_t body = 1024 * 1024;      // bytes; more: 413
  std::size_t pipelined = 256 * 1024;  // bytes read ahead of a request that is not answered yet;
                                       // more: the connection ends after that answer
  Duration read = std::chrono::seconds(10);   // first byte of a request to its last; longer: 408
  Duration idle = std::chrono::seconds(60);   // between requests; then the connection is closed
  Duration write = std::chrono::seconds(30);  // a client that takes nothing for so long is cut off
};

// The wall clock for Date, without a clock call: where steady time lay when the server started.
struct WallClock {
  std::chrono::system_clock::time_point wall;
  Time steady;
  bool frozen = false;  // always `wall`: for byte-identical answers
  [[nodiscard]] std::chrono::system_clock::time_point at(Time t) const {
    if (frozen) return wall;
    return wall + std::chrono::duration_cast<std::chrono::system_clock::duration>(t - steady);
  }
};
// "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110, 5.6.7)
std::string http_date(std::chrono::system_clock::time_point);

struct Field {
  std::string name, value;
};

struct Request {
  std::string_view method;
  std::string_view path;   // as sent, percent-encoded; starts with '/'
  std::string_view query;  // behind the first '?', without it
  std::string_view body;
  const std::vector<Field>& fields;
  bool http_1_0 = false;

  // Case-insensitive; the first of that name; null data() if there is none.
  [[nodiscard]] std::string_view field(std::string_view name) const;
  // Whether a comma-separated list field contains a token, case-insensitively.
  [[nodiscard]] bool lists(std::string_view name, std::string_view token) const;
  // A query parameter, percent-decoded; '+' is a space. False: not there, or badly encoded.
  bool parameter(std::string_view name, std::string& value) const;
};
bool percent_decode(std::string_view, std::string&);  // false: bad encoding

struct Response {
  unsigned status = 200;
  std::vector<Field> fields;  // Date, Content-Length, Connection and chunking are added
  std::string body;
};
Response text(unsigned status, std::string_view line);  // text/plain, a newline is added
Response json(unsigned status, std::string body);       // application/json
const char* reason_of(unsigned status);                 // "Not Found"

class Answer;

// A request that is not answered yet, or is being answered piece by piece. Destroyed as soon as the
// answer is complete or its client has gone, whichever comes first: what it waits for is let go of
// in its destructor.
class Pending {
 public:
  Pending() = default;
  Pending(const Pending&) = delete;
  Pending& operator=(const Pending&) = delete;
  virtual ~Pending() = default;

  virtual void on_post(Answer&, const Post&) {}
  virtual void on_reply(Answer&, const Reply&) {}
  virtual void on_deadline(Answer&) {}
  virtual void on_room(Answer&) {}
  // The client has sent its last byte: it has closed its half, or it has gone, which TCP does not
  // tell apart. What waits for news answers at once with what there is, or ends its stream, so that
  // nobody is waited for who has gone; what is sure to be answered soon may go on, as here.
  virtual void on_eof(Answer&) {}
  // The server is stopping. The default answers 503, or ends the stream.
  virtual void on_drain(Answer&);
};

// The answer to the current request, for the length of one callback.
class Answer {
 public:
  virtual ~Answer() = default;

  // Behind a complete answer, nothing more has an effect.
  //
  // The whole answer. HEAD gets it without its body; a 204 or 304 has none.
  virtual void send(Response) = 0;
  // The head of a stream; pieces follow until finish(), or until the client goes. The length is not
  // known: chunked, or to the end of the connection for HTTP/1.0. HEAD gets the head only.
  virtual void stream(Response head) = 0;
  virtual void piece(std::string_view) = 0;  // copied
  // Not copied: a chunk made by as_chunk(), shared by all its receivers.
  virtual void share(const Frame& chunk) = 0;
  virtual void finish() = 0;
  // 101, and from then on the connection is `session`'s, beginning with on_open and the bytes that
  // came behind the request.
  virtual void upgrade(Response head, std::unique_ptr<Session> session) = 0;
  // The request stays unanswered for now; later callbacks go to it. Replaces a former one.
  virtual void wait(std::unique_ptr<Pending>) = 0;
  // As in Out.
  virtual void wake_at(Time) = 0;  // only with a Pending; kNever removes
  virtual void call(const Upstream&, CallId, Bytes request, std::size_t reply_size, Duration) = 0;
  virtual void await_room() = 0;
  // Ends the connection after what is sent; abort at once.
  virtual void close() = 0;
  virtual void abort() = 0;

  [[nodiscard]] virtual ConnId id() const = 0;
  [[nodiscard]] virtual Time now() const = 0;
  [[nodiscard]] virtual std::size_t queued() const = 0;  // bytes not taken by the kernel yet, with
                                                         // those of this callback
  [[nodiscard]] virtual bool streaming() const = 0;      // stream() has been called
};

// "1a\r\n...\r\n", once for all receivers of a stream.
Frame as_chunk(std::string_view);

class Handler {
 public:
  Handler() = default;
  Handler(const Handler&) = delete;
  Handler& operator=(const Handler&) = delete;
  virtual ~Handler() = default;

  // Any of the backend's threads, several at a time. Calls exactly one of send, stream, upgrade,
  // wait on the answer, also if it throws nothing else to say.
  virtual void handle(const Request&, Answer&) = 0;
};

// What every connection of a server shares; outlives them.
struct HttpContext {
  Handler& handler;
  HttpLimits limits;
  WallClock clock;
};
std::unique_ptr<Session> make_http_session(const HttpContext&);

}  // namespace echolab::patterns
