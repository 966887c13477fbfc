// One accepted connection of the io_uring backend (backends/io_uring.cpp), and what the kernel
// holds of it.
#pragma once

#include <liburing.h>
#include <sys/socket.h>

#include <array>
#include <cstddef>
#include <memory>
#include <vector>

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
    std::uint16_t buffer;
    Pin pin;
  };
  struct NoPins final : Pin::Owner {  // of a buffer of its own: Outbox::pinned() says it all
    void pin(std::uint32_t) noexcept override {}
    void unpin(std::uint32_t) noexcept override {}
  };

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
  bool starved = false;      // none was provided: the next receive brings its own
  bool awaits_room = false;  // on_room is to come
  bool room_queued = false;  // on the room_ list
  bool closing = false;      // the session has closed; input is discarded
  bool lingering = false;    // our FIN is sent, the peer's is awaited
  bool ended = false;        // on_close has been called

  // Fills in a receive into its own buffer.
  void prepare_receive(io_uring_sqe* sqe) {
    if (!buffer) buffer = std::make_unique_for_overwrite<std::byte[]>(kOwnBuffer);
    io_uring_prep_recv(sqe, fd, buffer.get(), kOwnBuffer, 0);
  }
  // Fills in a send of what waits in the outbox, or the first part of it.
  void prepare_send(io_uring_sqe* sqe) {
    iovec first{};
    if (outbox.segments() == 1) {
      outbox.gather(&first, 1);
      sending = first.iov_len;
      return io_uring_prep_send(sqe, fd, first.iov_base, first.iov_len, 0);
    }
    if (!message) message = std::make_unique<Message>();
    msghdr& header = message->header;
    header.msg_iov = message->entries.data();
    header.msg_iovlen = outbox.gather(header.msg_iov, kGather);
    for (std::size_t i = 0; i < header.msg_iovlen; ++i) sending += header.msg_iov[i].iov_len;
    io_uring_prep_sendmsg(sqe, fd, &header, 0);
  }
};

}  // namespace echolab
