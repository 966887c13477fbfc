#include "harness/controls.hpp"

#include <algorithm>
#include <array>
#include <filesystem>

#include "harness/process.hpp"
#include "harness/uring_probe.hpp"

namespace echolab::harness {
namespace {

constexpr std::array kControls = {
    Control{"raw-epoll", "epoll",
            "a bare epoll loop with no interface: what epoll costs more is the seam"},
    Control{"raw-io_uring", "io_uring",
            "a bare io_uring loop with no interface: what io_uring costs more is the seam"}};

// Why it cannot run here; empty if it can. `backend`: what the echo-server says of its backend.
std::string absent(const Control& control, const std::string& backend) {
  if (!std::filesystem::exists(sibling_program(control.name))) {
    return "its program is not beside this one (raw-io_uring is built where liburing is)";
  }
  if (!backend.empty() || std::string_view(control.backend) != "io_uring") return backend;
  const std::vector<std::string> granted = probe_io_uring().registrations;
  const bool incremental =
      std::find(granted.begin(), granted.end(), "buffer_ring_incremental") != granted.end();
  return incremental ? "" : "the kernel has no incremental buffer rings (Linux 6.12)";
}

}  // namespace

std::span<const Control> controls() {
  return kControls;
}

const Control* control_named(std::string_view name) {
  const auto* const found = std::find_if(kControls.begin(), kControls.end(),
                                         [&](const Control& c) { return name == c.name; });
  return found == kControls.end() ? nullptr : found;
}

nlohmann::json catalogue_with_controls(const std::string& program) {
  nlohmann::json list = catalogue(program);
  for (const Control& control : kControls) {
    std::string backend;
    for (const nlohmann::json& variant : list["variants"]) {
      if (variant["name"] == control.backend) backend = variant["unavailable"];
    }
    list["variants"].push_back(
        {{"name", control.name}, {"why", control.why}, {"unavailable", absent(control, backend)}});
  }
  return list;
}

}  // namespace echolab::harness
