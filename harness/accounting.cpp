#include "harness/accounting.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <optional>
#include <set>
#include <string_view>

#include "harness/files.hpp"

namespace echolab::harness {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kNanos = 1'000'000'000;

std::optional<std::uint64_t> number(std::string_view text) {
  const std::size_t start = text.find_first_not_of(" \t");
  if (start == std::string_view::npos) return std::nullopt;
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data() + start, text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  return value;
}

// The nth word, from 0; empty if there are not so many.
std::string_view word(std::string_view text, unsigned n) {
  for (;; --n) {
    const std::size_t start = text.find_first_not_of(" \n");
    if (start == std::string_view::npos) return {};
    text.remove_prefix(start);
    const std::size_t end = std::min(text.find_first_of(" \n"), text.size());
    if (n == 0) return text.substr(0, end);
    text.remove_prefix(end);
  }
}

// What follows "Name:" in a file of such lines, without blanks; empty if there is no such line.
std::string_view field(std::string_view text, std::string_view name) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    if (line.size() > name.size() && line.starts_with(name) && line[name.size()] == ':') {
      line.remove_prefix(name.size() + 1);
      line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
      return line;
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return {};
}

std::string proc(pid_t pid, std::string_view file) {
  return "/proc/" + std::to_string(pid) + "/" + std::string(file);
}

// The numeric names in a folder: processes, threads or descriptors. A folder that disappears while
// it is read ends early: the process is gone.
std::vector<pid_t> numbers_in(const std::string& folder, bool* readable = nullptr) {
  std::vector<pid_t> found;
  std::error_code error;
  fs::directory_iterator entry(folder, error);
  if (readable != nullptr) *readable = !error;
  while (!error && entry != fs::directory_iterator()) {
    if (const auto n = number(entry->path().filename().native())) {
      found.push_back(static_cast<pid_t>(*n));
    }
    entry.increment(error);
  }
  return found;
}

std::vector<pid_t> threads_of(pid_t pid) {
  return numbers_in(proc(pid, "task"));
}

void add_children(pid_t pid, std::set<pid_t>& all) {
  if (!all.insert(pid).second) return;
  for (const pid_t thread : threads_of(pid)) {
    const auto text = read_text(proc(pid, "task/" + std::to_string(thread) + "/children"));
    if (!text) continue;
    for (unsigned i = 0;; ++i) {
      const auto child = number(word(*text, i));
      if (!child) break;
      add_children(static_cast<pid_t>(*child), all);
    }
  }
}

void add_thread(pid_t pid, pid_t thread, Usage& usage) {
  const std::string folder = "task/" + std::to_string(thread) + "/";
  const auto status = read_text(proc(pid, folder + "status"));
  if (!status) return;  // it has ended since
  const bool worker = field(*status, "Name").starts_with("iou-");
  ++(worker ? usage.workers : usage.threads);
  usage.voluntary_switches += number(field(*status, "voluntary_ctxt_switches")).value_or(0);
  usage.involuntary_switches += number(field(*status, "nonvoluntary_ctxt_switches")).value_or(0);

  // "time on the CPU, time waiting for it, time slices", ns
  const auto schedstat = read_text(proc(pid, folder + "schedstat"));
  if (!schedstat) {
    if (::access(proc(pid, folder + "status").c_str(), F_OK) == 0) usage.scheduler_known = false;
    return;
  }
  usage.run_delay_ns += number(word(*schedstat, 1)).value_or(0);
  if (worker) usage.worker_ns += number(word(*schedstat, 0)).value_or(0);
}

void add_process(pid_t pid, Usage& usage) {
  static const std::uint64_t tick = kNanos / static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  const auto stat = read_text(proc(pid, "stat"));
  const auto status = read_text(proc(pid, "status"));
  if (!stat || !status) return;
  ++usage.processes;
  // The name in brackets may hold anything; after it comes field 3 of proc_pid_stat(5).
  const std::string_view rest = std::string_view(*stat).substr(stat->rfind(')') + 1);
  const auto value = [&](unsigned field_number) {
    return number(word(rest, field_number - 3)).value_or(0);
  };
  usage.minor_faults += value(10);
  usage.major_faults += value(12);
  usage.user_ns += value(14) * tick;
  usage.system_ns += value(15) * tick;
  usage.rss_bytes += number(field(*status, "VmRSS")).value_or(0) * 1024;
  for (const pid_t thread : threads_of(pid)) add_thread(pid, thread, usage);
}

// Calls visit(target) for each descriptor of a process. False if they are hidden from us.
template <typename Visit>
bool each_descriptor(pid_t pid, Visit visit) {
  bool readable = false;
  const std::string folder = proc(pid, "fd");
  for (const pid_t fd : numbers_in(folder, &readable)) {
    std::error_code error;
    const fs::path target = fs::read_symlink(folder + "/" + std::to_string(fd), error);
    if (!error) visit(std::string_view(target.native()));
  }
  return readable;
}

}  // namespace

TcpMemory tcp_memory() {
  static const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const auto text = read_text("/proc/net/sockstat");
  if (!text) return {};
  // "TCP: inuse 27 orphan 1 tw 3043 alloc 27 mem 132"
  const std::string_view tcp = field(*text, "TCP");
  const std::string_view line = tcp.substr(0, tcp.find('\n'));
  TcpMemory memory;
  for (unsigned i = 0; !word(line, i).empty(); i += 2) {
    const std::uint64_t value = number(word(line, i + 1)).value_or(0);
    if (word(line, i) == "inuse") memory.sockets = value;
    if (word(line, i) == "mem") memory.bytes = value * page;
  }
  return memory;
}

RunDelay::RunDelay() : file_(::open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC)) {
}

std::uint64_t RunDelay::ns() const {
  char text[64];  // three numbers of up to 20 digits
  const ssize_t n = file_ ? ::pread(file_.get(), text, sizeof text, 0) : 0;
  if (n <= 0) return 0;
  return number(word(std::string_view(text, static_cast<std::size_t>(n)), 1)).value_or(0);
}

Accounting::Accounting(pid_t root) : root_(root) {
  refresh();
}

std::uint64_t Accounting::cpu_ns() {
  std::uint64_t sum = 0;
  for (auto& [pid, known] : known_) {
    timespec now{};
    if (::clock_gettime(known.clock, &now) == 0) {
      const auto ns =
          static_cast<std::uint64_t>(now.tv_sec) * kNanos + static_cast<std::uint64_t>(now.tv_nsec);
      known.last_ns = std::max(known.last_ns, ns);
    }
    sum += known.last_ns;
  }
  return sum;
}

void Accounting::refresh() {
  std::set<pid_t> all;
  add_children(root_, all);
  for (const pid_t pid : all) {
    clockid_t clock{};
    if (known_.contains(pid) || ::clock_getcpuclockid(pid, &clock) != 0) continue;
    known_.emplace(pid, Known{clock, 0});
  }
}

Usage Accounting::usage() {
  refresh();
  Usage usage;
  for (const pid_t pid : processes()) add_process(pid, usage);
  usage.cpu_ns = cpu_ns();
  return usage;
}

DescriptorKinds Accounting::descriptors() const {
  DescriptorKinds kinds;
  for (const pid_t pid : processes()) {
    const bool readable = each_descriptor(pid, [&](std::string_view target) {
      if (target.starts_with("socket:")) {
        ++kinds.sockets;
      } else if (target == "anon_inode:[io_uring]") {
        ++kinds.io_uring;
      } else if (target == "anon_inode:[eventpoll]") {
        ++kinds.eventpoll;
      } else if (target == "anon_inode:[eventfd]") {
        ++kinds.eventfd;
      } else {
        ++kinds.other;
      }
    });
    if (!readable) kinds.complete = false;
  }
  return kinds;
}

bool Accounting::owns_socket(std::uint64_t inode) const {
  const std::string wanted = "socket:[" + std::to_string(inode) + "]";
  bool found = false;
  bool hidden = false;
  for (const pid_t pid : processes()) {
    if (!each_descriptor(pid, [&](std::string_view target) { found |= target == wanted; })) {
      hidden = true;
    }
  }
  return found || hidden;
}

std::vector<std::string> Accounting::libraries() const {
  std::set<std::string> names;
  const auto maps = read_text(proc(root_, "maps"));
  std::string_view rest = maps ? std::string_view(*maps) : std::string_view();
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    const std::size_t slash = line.rfind('/');
    if (slash != std::string_view::npos && line.find(".so", slash) != std::string_view::npos) {
      names.emplace(line.substr(slash + 1));
    }
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return {names.begin(), names.end()};
}

std::vector<pid_t> Accounting::processes() const {
  std::vector<pid_t> living;
  for (const auto& [pid, known] : known_) {
    if (::access(proc(pid, "stat").c_str(), F_OK) == 0) living.push_back(pid);
  }
  return living;
}

}  // namespace echolab::harness
