// echo-server: the echo service over any backend.

#include "backends/serve.hpp"
#include "echo/echo.hpp"

namespace {

class EchoServer final : public echolab::Program {
  const char* name() const override { return "echo-server"; }
  const char* about() const override {
    return "Echo (RFC 862) over blocking threads, epoll, io_uring or libuv.";
  }
  const char* default_listen() const override { return "127.0.0.1:7007"; }
  void add_options(CLI::App& app) override {
    echolab::add_time_option(app, "--delay", delay_, "answer each chunk so much later");
  }
  std::unique_ptr<echolab::Service> start(echolab::Backend&) override {
    return std::make_unique<echolab::EchoService>(delay_);
  }

  echolab::Duration delay_{};
};

}  // namespace

int main(int argc, char** argv) {
  EchoServer program;
  return echolab::serve(argc, argv, program);
}
