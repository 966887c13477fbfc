// Built in place of io_uring.cpp where liburing is missing.

#include "backends/models.hpp"

namespace echolab {

std::string io_uring_unavailable() {
  return "echolab was built without liburing; install it (scripts/setup) and build again";
}

std::unique_ptr<Backend> make_io_uring(const Spec&, const Options&) {
  throw BackendUnavailable(io_uring_unavailable());
}

}  // namespace echolab
