// One accepted connection of the io_uring backend (backends/io_uring.cpp), and what the kernel
// holds of it.
#pragma once

#include <liburing.h>
#include <sys/socket.h>

#include <array>
#include <cstddef>
#include <memory>
#include <vector>

#include "backends/buffer_ring.hpp"
#include "backends/outbox.hpp"
#include "backends/session.hpp"

namespace echolab {

struct UringConnection {
  static constexpr std::size_t kOwnBuffer = 64 * 1024;  // bytes; a whole 64 KiB message at once
  static constexpr std::size_t kGather = 64;            // iovec entries per sendmsg
  struct Message {
    msghdr header{};
    std::array<iovec, kGather> entries;
  };
  struct Held {
    Input bytes;
    Outbox::Source source;
    Pin pin;
    std::vector<std::byte> copy;
  };
  struct NoPins final : Pin::Owner {  // of a buffer of its own: Outbox::pinned() says it all
    void pin(std::uint32_t) noexcept override {}
    void unpin(std::uint32_t) noexcept override {}
  };
  static inline NoPins no_pins;

  ConnId id;
  int fd = -1;  // a descriptor, or the index of a direct one
  std::unique_ptr<Session> session;
  Outbox outbox;
  std::unique_ptr<std::byte[]> buffer;  // of its own, where none are provided
  std::vector<Held> held;               // input that came while reading was stopped
  std::unique_ptr<Message> message;     // of a send that gathers
  std::size_t sending = 0;              // bytes of the send in flight
  unsigned in_flight = 0;    // requests that the kernel holds; freed only when there are none
  unsigned calls = 0;        // unanswered
  bool receiving = false;    // a receive is in flight
  bool cancelling = false;   // its cancellation too
  bool queued = false;       // on the flush_ list
  bool silent = false;       // the send in flight reports only failure
  bool blocked = false;      // the socket took less than it was given: the next send waits for room
  bool eof = false;          // a receive has returned 0
  bool paused = false;       // not reading: too much is waiting to be sent
  bool parked = false;       // on the parked_ list
  bool watching = false;     // a poll for a reset is in flight
  bool awaits_room = false;  // on_room is to come
  bool room_queued = false;  // on the room_ list
  bool closing = false;      // the session has closed; input is discarded
  bool lingering = false;    // our FIN is sent, the peer's is awaited
  bool ended = false;        // on_close has been called

  // Fills in a receive: a multishot one into provided buffers, or one into its own.
  void prepare_receive(io_uring_sqe* sqe, bool multishot) {
    if (multishot) {
      io_uring_prep_recv_multishot(sqe, fd, nullptr, 0, 0);
      sqe->flags |= IOSQE_BUFFER_SELECT;
      sqe->buf_group = BufferRing::kGroup;
    } else {
      if (!buffer) buffer = std::make_unique_for_overwrite<std::byte[]>(kOwnBuffer);
      io_uring_prep_recv(sqe, fd, buffer.get(), kOwnBuffer, 0);
    }
  }
  // Keeps input for later: in its buffer, or copied if that may not be held. Returns what is
  // copied.
  std::size_t hold(Input bytes, const Outbox::Source& source) {
    Held& h = held.emplace_back();
    if (source.may_pin > 0) {
      h.bytes = bytes;
      h.source = source;
      h.pin = Pin(*source.owner, source.buffer);
    } else {
      h.copy.assign(bytes.begin(), bytes.end());
      h.bytes = h.copy;
    }
    return h.copy.size();
  }
  // Fills in a send of what waits in the outbox, or the first part of it. It is first tried without
  // waiting for room, and MSG_WAITALL makes it a failure if not all is taken. The next one waits,
  // and completes with the first bytes that are taken: a slow reader must not seem to take none.
  void prepare_send(io_uring_sqe* sqe) {
    const unsigned flags = MSG_NOSIGNAL | (blocked ? 0U : unsigned{MSG_WAITALL | MSG_DONTWAIT});
    iovec first{};
    if (outbox.segments() == 1) {
      outbox.gather(&first, 1);
      sending = first.iov_len;
      return io_uring_prep_send(sqe, fd, first.iov_base, sending, static_cast<int>(flags));
    }
    if (!message) message = std::make_unique<Message>();
    msghdr& header = message->header;
    header.msg_iov = message->entries.data();
    header.msg_iovlen = outbox.gather(header.msg_iov, kGather);
    for (std::size_t i = 0; i < header.msg_iovlen; ++i) sending += header.msg_iov[i].iov_len;
    io_uring_prep_sendmsg(sqe, fd, &header, flags);
  }
  // Fills in a reset. Connecting to no address disconnects at once, with RST (connect(2)); a direct
  // descriptor has no SO_LINGER to set.
  void prepare_reset(io_uring_sqe* sqe) const {
    static constexpr sockaddr kNowhere{AF_UNSPEC, {}};
    io_uring_prep_connect(sqe, fd, &kNowhere, sizeof kNowhere);
  }
};

}  // namespace echolab
