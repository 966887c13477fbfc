#include "patterns/websocket.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "patterns/deflate.hpp"
#include "patterns/utf8.hpp"

namespace echolab::patterns {
namespace {

constexpr std::uint8_t kRsv1 = 4;
// Compressed, a message may be longer than it is: 5 bytes for each 16 KiB block at the worst. More
// than limit / 1024 and this many bytes above the limit is refused before it is inflated.
constexpr std::size_t kDeflateOverhead = 64;
// How often it is looked whether the last bytes are taken: on_room comes earlier than that.
constexpr Duration kLook = std::chrono::milliseconds(50);

bool is_control(std::uint8_t opcode) {
  return opcode >= 8;
}

// RFC 6455, 7.4, and what IANA has registered since (1012 to 1014).
bool may_be_sent(unsigned code) {
  return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
         (code >= 3000 && code <= 4999);
}

// What is on its way in. There is one only while a frame or a message is incomplete: an idle
// connection keeps neither wslay's buffer nor a window of zlib's.
struct Incoming {
  WsFrameReader reader;
  bool in_message = false;  // a message's first frame has begun, its last has not ended
  bool text = false;
  std::uint64_t size = 0;  // bytes of the message's frames so far, as announced
  std::string message;     // so far
  Utf8 utf8;
  std::unique_ptr<Inflater> inflater;  // of a compressed message
  std::array<char, kWsControlPayload> control{};
  std::size_t control_size = 0;
};

class WebSocketSession final : public Session, private WebSocket {
 public:
  WebSocketSession(const WsLimits& limits, bool deflate, std::unique_ptr<WsHandler> handler)
      : limits_(limits), deflate_(deflate), handler_(std::move(handler)) {}

  void on_open(Out& out, ConnId id, Time now) override {
    id_ = id;
    heard_ = now;
    due_ = now + limits_.heartbeat;
    in_callback(out, now, [&] { handler_->on_open(*this); });
  }
  void on_bytes(Out& out, Input in, Time now) override {
    in_callback(out, now, [&] { read(in); });
  }
  void on_eof(Out& out, Time now) override {
    in_callback(out, now, [&] { finish(); });
  }
  void on_post(Out& out, const Post& post, Time now) override {
    in_callback(out, now, [&] {
      if (state_ == State::open) handler_->on_post(*this, post);
    });
  }
  void on_room(Out& out, Time now) override {
    in_callback(out, now, [&] {
      if (state_ == State::open) handler_->on_room(*this);
    });
  }
  void on_deadline(Out& out, Time now) override {
    armed_ = kNever;
    in_callback(out, now, [&] { deadline(); });
  }
  void on_drain(Out& out, Time now) override {
    in_callback(out, now, [&] { close(WsCode::going_away, "the server is stopping"); });
  }
  void on_close(std::error_code) noexcept override { handler_.reset(); }

 private:
  enum class State : std::uint8_t {
    open,
    closing,    // our Close is sent, the peer's is awaited
    finishing,  // all is said; ends when the peer has taken it
    ended,      // nothing but on_close can come
  };

  // ---- WebSocket --------------------------------------------------------------------------------
  void send(WsOpcode type, std::string_view payload) override {
    if (state_ != State::open) return;
    if (deflate_) return write(ws_deflated_frame(type, payload));
    write(ws_head(type, payload.size()));
    write(payload);
  }
  void share(const Frame& frame) override {
    if (state_ == State::open) out_->share(frame);
  }
  void close(std::uint16_t code, std::string_view reason) override {
    if (state_ != State::open) return;
    write_close(code, reason);
    state_ = State::closing;
    due_ = now_ + limits_.close;
  }
  void wake_at(Time when) override { wanted_ = when; }
  void await_room() override { out_->await_room(); }
  [[nodiscard]] bool deflate() const override { return deflate_; }
  [[nodiscard]] ConnId id() const override { return id_; }
  [[nodiscard]] Time now() const override { return now_; }
  [[nodiscard]] std::size_t queued() const override { return out_->queued() + out_->total(); }

  // ---- effects ----------------------------------------------------------------------------------
  template <typename Callback>
  void in_callback(Out& out, Time now, Callback callback) {
    out_ = &out;
    now_ = now;
    callback();
    if (state_ != State::open) handler_.reset();
    if (state_ != State::ended) arm();
    out_ = nullptr;
  }
  void write(std::string_view text) { out_->write(std::as_bytes(std::span(text))); }
  void write_close(std::uint16_t code, std::string_view reason) {
    std::string payload{static_cast<char>(code >> 8), static_cast<char>(code)};
    payload.append(reason.substr(0, kWsControlPayload - payload.size()));
    write(ws_frame(WsOpcode::close, payload));
  }
  // The peer has broken a rule: it is told which, and no more of its bytes are read (RFC 6455,
  // 7.1.7). Where our Close is sent already, there is nothing to tell.
  void fail(std::uint16_t code, std::string_view reason) {
    if (state_ == State::open) write_close(code, reason);
    finish();
  }
  // Out::close() waits for ever for a peer that takes nothing, so that one that has not taken all
  // gets a deadline first.
  void finish() {
    if (out_->queued() == 0) return end();
    state_ = State::finishing;
    finish_by_ = now_ + limits_.close;
    due_ = std::min(now_ + kLook, finish_by_);
  }
  void end() {
    state_ = State::ended;
    out_->queued() == 0 ? out_->close() : out_->abort();
  }

  // ---- deadlines --------------------------------------------------------------------------------
  // One wake-up at the earliest of what is due. What was heard moves the heartbeat only when it
  // rings, so that traffic costs no timer.
  void arm() {
    const Time next = state_ == State::open ? std::min(due_, wanted_) : due_;
    if (next >= armed_) return;
    armed_ = next;
    out_->wake_at(next);
  }
  void deadline() {
    if (state_ == State::open && wanted_ <= now_) {
      wanted_ = kNever;
      handler_->on_deadline(*this);
    }
    if (due_ > now_ || state_ == State::ended) return;
    if (state_ == State::open) return heartbeat();
    const bool taken = out_->queued() == 0;
    if (state_ == State::closing || taken || now_ >= finish_by_) return end();
    due_ = std::min(now_ + kLook, finish_by_);
  }
  void heartbeat() {
    if (pinged_) {
      // A client in the midst of a large frame cannot answer before its end.
      if (incoming_ && heard_ > due_ - limits_.pong) {
        due_ = heard_ + limits_.pong;
      } else {
        close(WsCode::internal_error, "no pong");
      }
    } else if (heard_ + limits_.heartbeat > now_) {
      due_ = heard_ + limits_.heartbeat;
    } else {
      pinged_ = true;
      write(ws_frame(WsOpcode::ping, std::to_string(++pings_)));
      due_ = now_ + limits_.pong;
    }
  }

  // ---- reading ----------------------------------------------------------------------------------
  [[nodiscard]] bool reading() const { return state_ == State::open || state_ == State::closing; }
  void read(Input in) {
    if (!reading()) return;
    heard_ = now_;
    if (!incoming_) incoming_ = std::make_unique<Incoming>();
    WsFrameReader& reader = incoming_->reader;
    reader.feed(in);
    WsFrameReader::Piece piece;
    WsFrameReader::Result result = WsFrameReader::Result::piece;
    while (reading() && result == WsFrameReader::Result::piece) {
      result = reader.next(piece);
      if (result == WsFrameReader::Result::piece) take(piece);
    }
    if (result == WsFrameReader::Result::malformed) {
      fail(WsCode::protocol_error, "malformed frame");
    }
    if (!reading() || (reader.between_frames() && !incoming_->in_message)) incoming_.reset();
  }
  void take(const WsFrameReader::Piece& piece) {
    if (piece.first && !begin(piece)) return;
    is_control(piece.opcode) ? control(piece) : data(piece);
  }

  // Whether the frame may come now.
  bool begin(const WsFrameReader::Piece& piece) {
    const auto wrong = [&](const char* reason) {
      fail(WsCode::protocol_error, reason);
      return false;
    };
    Incoming& in = *incoming_;
    const auto opcode = static_cast<WsOpcode>(piece.opcode);
    const bool starts = opcode == WsOpcode::text || opcode == WsOpcode::binary;
    if (!piece.masked) return wrong("frame is not masked");
    if ((piece.reserved & ~(deflate_ && starts ? kRsv1 : 0)) != 0) return wrong("reserved bit");
    switch (opcode) {
      case WsOpcode::close:
      case WsOpcode::ping:
      case WsOpcode::pong:
        in.control_size = 0;
        return true;
      case WsOpcode::text:
      case WsOpcode::binary:
        if (in.in_message) return wrong("message within a message");
        in.in_message = true;
        in.text = opcode == WsOpcode::text;
        in.size = 0;
        in.utf8.reset();
        if (piece.reserved != 0) in.inflater = std::make_unique<Inflater>();
        break;
      case WsOpcode::continuation:
        if (!in.in_message) return wrong("nothing to continue");
        break;
      default:
        return wrong("reserved opcode");
    }
    in.size += piece.payload_length;
    const std::size_t overhead = in.inflater ? limits_.message / 1024 + kDeflateOverhead : 0;
    if (in.size > limits_.message + overhead) {
      fail(WsCode::too_big, "message too big");
      return false;
    }
    return true;
  }

  void data(const WsFrameReader::Piece& piece) {
    Incoming& in = *incoming_;
    const bool complete = piece.last && piece.final;
    if (state_ == State::open) {
      std::string_view message = piece.data;
      // A message that came in one piece is handed over as it lies.
      const bool whole = !in.inflater && complete && piece.first && in.message.empty();
      if (!whole) {
        if (!append(piece.data, complete)) return;
        message = in.message;
      }
      if (in.text && ((whole && !in.utf8.feed(piece.data)) || (complete && !in.utf8.complete()))) {
        return fail(WsCode::invalid_payload, "text is not UTF-8");
      }
      if (complete) {
        handler_->on_message(*this, in.text ? WsOpcode::text : WsOpcode::binary, message);
      }
    }
    if (!complete) return;
    in.in_message = false;
    in.message.clear();
    in.inflater.reset();
  }
  // False: it is failed.
  bool append(std::string_view piece, bool complete) {
    Incoming& in = *incoming_;
    const std::size_t before = in.message.size();
    Inflater::Result result = Inflater::Result::ok;
    if (in.inflater) {
      result = in.inflater->add(piece, in.message, limits_.message);
      if (result == Inflater::Result::ok && complete) {
        result = in.inflater->finish(in.message, limits_.message);
      }
    } else {
      in.message.append(piece);
    }
    // What came out before an error is checked first, so that the answer is the same wherever the
    // input is cut.
    if (in.text && !in.utf8.feed(std::string_view(in.message).substr(before))) {
      fail(WsCode::invalid_payload, "text is not UTF-8");
    } else if (result == Inflater::Result::too_big) {
      fail(WsCode::too_big, "message too big");
    } else if (result == Inflater::Result::corrupt) {
      fail(WsCode::invalid_payload, "data does not inflate");
    }
    return reading();
  }

  void control(const WsFrameReader::Piece& piece) {
    Incoming& in = *incoming_;
    std::copy(piece.data.begin(), piece.data.end(), in.control.begin() + in.control_size);
    in.control_size += piece.data.size();
    if (!piece.last) return;
    const std::string_view payload(in.control.data(), in.control_size);
    switch (static_cast<WsOpcode>(piece.opcode)) {
      case WsOpcode::ping:
        if (state_ == State::open) write(ws_frame(WsOpcode::pong, payload));
        break;
      case WsOpcode::pong:
        // One that was not asked for means nothing (RFC 6455, 5.5.3).
        if (state_ == State::open && pinged_ && payload == std::to_string(pings_)) {
          pinged_ = false;
          due_ = now_ + limits_.heartbeat;
        }
        break;
      default:
        close_received(payload);
    }
  }
  void close_received(std::string_view payload) {
    if (!payload.empty()) {
      const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(payload[i]); };
      if (payload.size() == 1 || !may_be_sent(byte(0) * 256U + byte(1))) {
        return fail(WsCode::protocol_error, "close code");
      }
      if (!is_utf8(payload.substr(2))) {
        return fail(WsCode::invalid_payload, "close reason is not UTF-8");
      }
    }
    if (state_ == State::open) write(ws_frame(WsOpcode::close, payload));
    finish();
  }

  const WsLimits& limits_;
  const bool deflate_;
  State state_ = State::open;
  bool pinged_ = false;      // and not answered
  std::uint32_t pings_ = 0;  // the last ping's payload
  ConnId id_;
  std::unique_ptr<WsHandler> handler_;  // while open
  std::unique_ptr<Incoming> incoming_;
  Time heard_{};       // when bytes came last
  Time due_ = kNever;  // our own deadline, by state: next ping, pong, Close
  Time finish_by_{};
  Time wanted_ = kNever;  // the handler's
  Time armed_ = kNever;   // what the backend will ring at
  Out* out_ = nullptr;    // of the current callback, as is now_
  Time now_{};
};

}  // namespace

std::unique_ptr<Session> make_websocket(const WsLimits& limits, bool deflate,
                                        std::unique_ptr<WsHandler> handler) {
  return std::make_unique<WebSocketSession>(limits, deflate, std::move(handler));
}

}  // namespace echolab::patterns
