// Built in place of libuv.cpp where libuv is missing.

#include "backends/models.hpp"

namespace echolab {

std::string libuv_unavailable() {
  return "echolab was built without libuv; install it (scripts/setup) and build again";
}

std::unique_ptr<Backend> make_libuv(const Spec&, const Options&) {
  throw BackendUnavailable(libuv_unavailable());
}

}  // namespace echolab
