#include "backends/calls.hpp"

#include <netinet/tcp.h>

#include <algorithm>

namespace echolab {
namespace {

// What the caller is told. A connection that has ended has ended, whichever call finds out.
std::error_code told(std::error_code error) {
  if (error == std::errc::broken_pipe || error == std::errc::not_connected) {
    return std::make_error_code(std::errc::connection_reset);
  }
  return error;
}

}  // namespace

unsigned Calls::start(ConnId caller, std::vector<Out::Call>& calls) {
  for (Out::Call& asked : calls) {
    const Time deadline = asked.timeout > kNever - now_ ? kNever : now_ + asked.timeout;
    start({caller, deadline, std::move(asked)});
  }
  return static_cast<unsigned>(calls.size());
}

void Calls::start(Call&& call) {
  std::vector<std::uint32_t>& idle = idle_[call.asked.upstream];
  if (call.asked.reply_size == 0) {  // no byte would ever say that it has been answered
    return answer(call, std::make_error_code(std::errc::invalid_argument), {}, false);
  }
  if (idle.empty()) return fresh(std::move(call));
  Link& l = *links_.at(idle.back());
  idle.pop_back();
  l.reused = true;
  begin(l, std::move(call));
  request(l);
}

void Calls::begin(Link& l, Call&& call) {
  l.call = std::move(call);
  l.reply.resize(l.call.asked.reply_size + 1);
  l.sent = l.received = 0;
  l.busy = true;
  timers_.set(l.id.slot, l.call.deadline);
}

void Calls::fresh(Call&& call) {
  const Upstream& to = *call.asked.upstream;
  const auto address = parse_address(to.host, to.port);
  if (!address) {
    return answer(call, std::make_error_code(std::errc::invalid_argument), {}, false);
  }
  Fd fd(::socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | socket_flags_, 0));
  if (!fd) return answer(call, last_error(), {}, false);
  const int on = 1;
  counters_.add(Count::sys_sockopt);
  setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  Link& l = links_.add(0);
  l.fd = std::move(fd);
  l.address = *address;
  l.upstream = &to;
  begin(l, std::move(call));
  connect(l);
}

bool Calls::advance(Link& l) {
  const std::size_t size = l.call.asked.reply_size;
  if (l.received < size) return false;
  const bool clean =
      l.received == size && l.sent == l.call.asked.request.size() && !l.sending && !l.closing;
  l.reply.resize(size);
  answer(l.call, {}, std::move(l.reply), l.reused);
  l.reply.clear();
  std::vector<std::uint32_t>& idle = idle_[l.upstream];
  if (!clean || idle.size() == kIdle) {
    drop(l);
    return true;
  }
  l.busy = false;
  idle.push_back(l.id.slot);
  timers_.set(l.id.slot, now_ + kIdleTime);
  watch(l);
  return true;
}

void Calls::failed(Link& l, std::error_code error) {
  const bool again = l.reused && l.received == 0 && error != std::errc::timed_out;
  // A copy: the kernel may still be reading the request.
  Call call = l.call;
  const bool reused = l.reused;
  drop(l);
  again ? fresh(std::move(call)) : answer(call, told(error), {}, reused);
}

void Calls::drop(Link& l) {
  if (!l.busy) {
    std::vector<std::uint32_t>& idle = idle_[l.upstream];
    idle.erase(std::find(idle.begin(), idle.end(), l.id.slot));
  }
  l.busy = false;
  l.closing = true;
  timers_.set(l.id.slot, kNever);
  close(l);
}

void Calls::answer(const Call& call, std::error_code error, std::vector<std::byte>&& bytes,
                   bool reused) {
  answers_.push_back({call.caller, call.asked.id, error, std::move(bytes), reused});
}

void Calls::cancel(ConnId caller) {
  links_.each([&](Link& l) {
    if (l.busy && l.call.caller == caller) drop(l);
  });
}

void Calls::expire() {
  std::uint32_t slot = 0;
  while (timers_.pop(now_, slot)) {
    Link& l = *links_.at(slot);
    l.busy ? failed(l, std::make_error_code(std::errc::timed_out)) : drop(l);
  }
}

void Calls::shut() {
  links_.each([this](Link& l) {
    if (!l.closing) drop(l);
  });
}

}  // namespace echolab
