// The models that the catalogue chooses from. Each is defined in the file of its name.
#pragma once

#include <memory>
#include <string>

#include "backends/backend.hpp"

namespace echolab {

std::unique_ptr<Backend> make_threads(const Spec&, const Options&);
std::unique_ptr<Backend> make_epoll(const Spec&, const Options&);
std::unique_ptr<Backend> make_io_uring(const Spec&, const Options&);
std::unique_ptr<Backend> make_libuv(const Spec&, const Options&);

// Why the model cannot run here, one line; empty if it can. Probes the kernel, leaves nothing
// behind.
std::string io_uring_unavailable();
std::string libuv_unavailable();

}  // namespace echolab
