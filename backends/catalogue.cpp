#include <fmt/format.h>

#include <charconv>

#include "backends/models.hpp"

namespace echolab {
namespace {

struct Entry {
  const char* model;
  const char* variant;     // empty: the default
  const char* value_name;  // "N" where the variant takes "=N"
  const char* why;
};

constexpr Entry kCatalogue[] = {
    {"threads", "", "", "blocking, a thread per connection: what the scheduler costs"},
    {"threads", "pool", "N",
     "N blocking workers over an accept queue: bounded, others wait their turn"},
    {"epoll", "", "", "readiness, edge-triggered, no epoll_ctl per request: epoll at its best"},
    {"epoll", "lt", "", "readiness, level-triggered, as most people first write it"},
    {"io_uring", "", "",
     "completions with DEFER_TASKRUN, multishot accept and receive, ring-provided buffers, direct "
     "descriptors"},
    {"io_uring", "plain", "", "one-shot operations and no set-up flags: what people start with"},
    {"io_uring", "multishot", "", "plain plus multishot and provided buffers: what those two buy"},
    {"io_uring", "sqpoll", "", "a kernel thread submits: fewer system calls for a second CPU"},
    {"libuv", "", "", "every request hops through the libuv threadpool and back"},
    {"libuv", "inline", "",
     "the session runs on the libuv loop: the price of the hop is the difference"},
    {"libuv", "preempt", "",
     "the pool under the default policy, not SCHED_BATCH: what it costs that jobs preempt the "
     "loop"},
};

// Workers in threads:pool=N; beyond it a thread per worker makes no sense on any machine of today.
constexpr unsigned kMaxPool = 65536;

std::string display(const Entry& e) {
  std::string name = e.model;
  if (*e.variant != '\0') name += fmt::format(":{}", e.variant);
  if (*e.value_name != '\0') name += fmt::format("={}", e.value_name);
  return name;
}

std::string unavailable(std::string_view model) {
  if (model == "io_uring") return io_uring_unavailable();
  if (model == "libuv") return libuv_unavailable();
  return {};
}

[[noreturn]] void unknown(std::string_view text, const std::string& reason) {
  std::string known;
  for (const Entry& e : kCatalogue)
    known += fmt::format("{}{}", known.empty() ? "" : ", ", display(e));
  throw UnknownBackend(fmt::format("{} '{}'; known are {}", reason, text, known));
}

}  // namespace

std::string Spec::name() const {
  std::string s = model;
  if (!variant.empty()) s += fmt::format(":{}", variant);
  if (value != 0) s += fmt::format("={}", value);
  return s;
}

std::vector<Variant> catalogue() {
  std::vector<Variant> all;
  for (const Entry& e : kCatalogue) all.push_back({display(e), e.why, unavailable(e.model)});
  return all;
}

Spec parse_spec(std::string_view text) {
  const std::size_t colon = text.find(':');
  std::string_view variant = colon == text.npos ? std::string_view{} : text.substr(colon + 1);
  const std::size_t equals = variant.find('=');
  const bool has_value = equals != variant.npos;
  const std::string_view number = has_value ? variant.substr(equals + 1) : std::string_view{};
  variant = variant.substr(0, equals);
  if (colon != text.npos && variant.empty()) unknown(text, "unknown backend");
  for (const Entry& e : kCatalogue) {
    if (text.substr(0, colon) != e.model || variant != e.variant) continue;
    if (has_value != (*e.value_name != '\0')) unknown(text, "wrong form of backend");
    Spec spec{e.model, e.variant, 0};
    if (has_value) {
      const auto [end, error] =
          std::from_chars(number.data(), number.data() + number.size(), spec.value);
      if (error != std::errc{} || end != number.data() + number.size() || spec.value == 0 ||
          spec.value > kMaxPool) {
        unknown(text, fmt::format("N must be 1 to {} in", kMaxPool));
      }
    }
    return spec;
  }
  unknown(text, "unknown backend");
}

std::unique_ptr<Backend> make_backend(const Spec& spec, const Options& options) {
  if (const std::string reason = unavailable(spec.model); !reason.empty()) {
    throw BackendUnavailable(fmt::format("{} cannot run here: {}", spec.model, reason));
  }
  if (spec.model == "threads") return make_threads(spec, options);
  if (spec.model == "epoll") return make_epoll(spec, options);
  if (spec.model == "io_uring") return make_io_uring(spec, options);
  return make_libuv(spec, options);
}

}  // namespace echolab
