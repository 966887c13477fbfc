// echo-server: the echo service over any backend.

#include "backends/serve.hpp"
#include "echo/echo.hpp"

int main(int argc, char** argv) {
  echolab::EchoService service;
  return echolab::serve(argc, argv, "echo-server",
                        "Echo (RFC 862) over blocking threads, epoll, io_uring or libuv.", service);
}
