// The echo service (RFC 862): what comes in goes out, in order.
#pragma once

#include "backends/session.hpp"

namespace echolab {

struct Echo final : Session {
  void on_bytes(Out& out, Input in, Time) override { out.forward(in); }
};

struct EchoService final : Service {
  std::unique_ptr<Session> accept() override { return std::make_unique<Echo>(); }
};

}  // namespace echolab
