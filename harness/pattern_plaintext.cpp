// GET /plaintext under wrk, one second a slice: what wrk cannot do shorter.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>

#include "harness/pattern_parts.hpp"
#include "harness/pattern_servers.hpp"
#include "harness/subscribers.hpp"

namespace echolab::harness {
namespace {

constexpr Millis kWrkTimeout{30'000};
constexpr const char* kRequest = "GET /plaintext HTTP/1.1\r\nHost: localhost\r\n\r\n";

struct HttpServer {
  PlaintextRow* row;
  std::optional<Server> server{};
};

// What comes after `label`, as a number; nothing if the label is not there.
std::optional<double> number_after(const std::string& text, const std::string& label) {
  const auto at = text.find(label);
  if (at == std::string::npos) return std::nullopt;
  return std::strtod(text.c_str() + at + label.size(), nullptr);
}

// One run of wrk, from the calling thread's CPUs.
PlaintextRow::Slice run_wrk(std::uint16_t port, unsigned connections) {
  const Output output = run_program({"wrk", "-t1", fmt::format("-c{}", connections), "-d1s",
                                     fmt::format("http://127.0.0.1:{}/plaintext", port)},
                                    kWrkTimeout);
  if (output.exit_status != 0) throw PatternError("wrk failed: " + output.err);
  for (const char* wrong : {"Socket errors:", "Non-2xx or 3xx responses:"}) {
    const auto at = output.out.find(wrong);
    if (at == std::string::npos) continue;
    throw PatternError("wrk: " + output.out.substr(at, output.out.find('\n', at) - at));
  }
  PlaintextRow::Slice slice;
  const auto end = output.out.find(" requests in ");
  const auto rate = number_after(output.out, "Requests/sec:");
  if (end == std::string::npos || !rate) throw PatternError("wrk says nothing that is understood");
  const auto start = output.out.rfind('\n', end) + 1;
  slice.requests = std::strtoull(output.out.c_str() + start, nullptr, 10);
  slice.requests_per_s = *rate;
  if (slice.requests == 0) throw PatternError("not one request was answered");
  return slice;
}

void start(HttpServer& contender, const ScratchFolder& folder, const Cpus& cpus) {
  const std::string& name = contender.row->contender;
  contender.server.emplace(name == kNginx ? start_nginx(folder, cpus)
                                          : start_pattern_server(name, cpus));
  const std::string answer = Asker(contender.server->port()).ask(kRequest);
  if (body_of(answer) != "Hello, World!\n") throw PatternError("not the body that was expected");
  contender.row->answer_bytes = answer.size();
  contender.row->head_bytes = answer.size() - body_of(answer).size();
  contender.server->accounting().refresh();
}

}  // namespace

PatternBench::PatternBench(const PatternOptions& options, PatternRecord& record, Step step)
    : options_(options), record_(record), step_(std::move(step)), random_(record.seed) {
}

void PatternBench::plaintext(const std::string& load_on) {
  const ScratchFolder folder;
  PlaintextCell& cell = record_.plaintext.emplace_back();
  cell.load_on = load_on;
  cell.rows.resize(options_.backends.size() + 1);
  std::vector<HttpServer> contenders;
  for (std::size_t i = 0; i < cell.rows.size(); ++i) {
    cell.rows[i].contender = i == 0 ? kNginx : options_.backends[i - 1];
    contenders.push_back({&cell.rows[i]});
  }
  for (HttpServer& contender : contenders) {
    attempt(contender, [&] { start(contender, folder, options_.server_cpus); });
  }
  const Cpus before = allowed_cpus();
  pin_this_thread(load_on == "same" ? options_.server_cpus : options_.client_cpus);
  std::vector<HttpServer*> order;
  for (HttpServer& contender : contenders) order.push_back(&contender);
  // The first round warms up and is not kept.
  for (unsigned round = 0; round <= options_.wrk_rounds; ++round) {
    step_(fmt::format("GET /plaintext, wrk on {} CPUs", load_on), round, options_.wrk_rounds + 1);
    std::shuffle(order.begin(), order.end(), random_);
    for (HttpServer* contender : order) {
      if (Load::interrupted()) throw LoadError(LoadError::Kind::interrupted, "interrupted");
      attempt(*contender, [&] {
        const std::uint64_t cpu = cpu_at_rest(*contender->server);
        PlaintextRow::Slice slice = run_wrk(contender->server->port(), options_.connections);
        slice.server_cpu_ns = cpu_at_rest(*contender->server) - cpu;
        slice.round = round;
        if (round > 0) contender->row->slices.push_back(slice);
      });
    }
  }
  pin_this_thread(before);
}

}  // namespace echolab::harness
