// The catalogue, the names of backends as users type them, and ports.
#include <algorithm>

#include "backends/sockets.hpp"
#include "tests/world.hpp"

namespace echolab::test {
namespace {

TEST_CASE("catalogue - the suite runs over every variant") {
  for (const Variant& v : catalogue()) {
    CAPTURE(v.name);
    CHECK_FALSE(v.why.empty());
    CHECK(v.why.find('\n') == std::string::npos);
    const bool covered =
        std::any_of(std::begin(kTargets), std::end(kTargets), [&](const Target& t) {
          const std::string_view spec = t.spec;
          return spec.substr(0, spec.find('=')) == v.name.substr(0, v.name.find('='));
        });
    CHECK(covered);
  }
}

TEST_CASE("spec - names are read back and anything else lists the known ones") {
  for (const Target& target : kTargets) {
    if (!target.simulated()) CHECK(parse_spec(target.spec).name() == target.spec);
  }
  CHECK(parse_spec("threads:pool=7").value == 7);
  for (const std::string bad :
       {"", ":", "epol", "Epoll", "epoll:", "epoll:et2", "epoll:lt=3", "epoll:lt:lt", " epoll",
        "threads:pool", "threads:pool=", "threads:pool=0", "threads:pool=-1", "threads:pool=1x",
        "threads:pool=99999999999999", "libuv=3", "io_uring:sq"}) {
    CAPTURE(bad);
    try {
      parse_spec(bad);
      FAIL_CHECK("accepted");
    } catch (const UnknownBackend& e) {
      const std::string what = e.what();
      CHECK(what.find('\n') == std::string::npos);
      for (const Variant& v : catalogue()) CHECK(what.find(v.name) != std::string::npos);
    }
  }
}

CONFORMANCE(port_in_use, "a port in use is an error of the constructor", Over::one_loop) {
  if (target.simulated()) return;
  const Listener taken("127.0.0.1", 0, Listener::Mode::nonblocking, false);
  Options options;
  options.port = taken.port();
  try {
    make_backend(parse_spec(target.spec), options);
    FAIL_CHECK("bound a port that is in use");
  } catch (const std::system_error& e) {
    CHECK(e.code() == std::errc::address_in_use);
  }
}

CONFORMANCE(port_is_free_again, "a stopped backend leaves its port free", Over::all) {
  if (target.simulated()) return;
  std::uint16_t port = 0;
  {
    auto world = make_world(target);
    world->start(serve_echo());
    auto peer = world->connect();
    CHECK(peer->exchange_all(pattern(1, 100)).size() == 100);
    port = world->backend().port();
    world->finish();
  }
  const Listener listener("127.0.0.1", port, Listener::Mode::nonblocking, false);
  CHECK(listener.port() == port);
}

}  // namespace
}  // namespace echolab::test
