#include "harness/pattern_servers.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <thread>

#include "harness/files.hpp"
#include "harness/load.hpp"

namespace echolab::harness {
namespace {

constexpr Millis kStart{20'000};  // 10 000 ports of former connections may be swept meanwhile
constexpr std::chrono::microseconds kLook{500};  // between two looks at a CPU clock
constexpr int kSame = 6;     // looks: others on its CPU may have kept it waiting for some
constexpr int kLooks = 200;  // in all

StartOptions options_for(const Cpus& cpus) {
  StartOptions options;
  options.cpus = cpus;
  options.timeout = kStart;
  options.interrupted = [] { return Load::interrupted(); };
  return options;
}

std::string quoted(const std::string& path) {
  std::string text = "'";
  for (const char c : path) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

// The usual settings of a production server, but for the log, which ours does not write either, and
// connections that are not closed after 1000 requests, which ours are not either.
constexpr std::string_view kNginxConfiguration = R"(worker_processes 1;
daemon off;
pid FOLDER/nginx.pid;
error_log stderr;
events { worker_connections 4096; }
http {
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path FOLDER/body;
  proxy_temp_path FOLDER/proxy;
  fastcgi_temp_path FOLDER/fastcgi;
  uwsgi_temp_path FOLDER/uwsgi;
  scgi_temp_path FOLDER/scgi;
  server {
    listen 127.0.0.1:PORT;
    location = /plaintext {
      default_type text/plain;
      return 200 "Hello, World!\n";
    }
  }
}
)";

}  // namespace

ScratchFolder::ScratchFolder()
    : path_((std::filesystem::temp_directory_path() / "echolab-XXXXXX").string()) {
  if (::mkdtemp(path_.data()) == nullptr) {
    throw std::system_error(errno, std::generic_category(), path_);
  }
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

Server start_pattern_server(const std::string& backend, const Cpus& cpus) {
  return Server::start_foreign(
      backend,
      fmt::format("{} --backend {} --threads 1 --listen 127.0.0.1:{{port}} --sse-heartbeat 1h "
                  "--ws-heartbeat 1h",
                  quoted(sibling_program("pattern-server")), quoted(backend)),
      options_for(cpus));
}

Server start_raw_fanout(const Cpus& cpus) {
  return Server::start_foreign(kControl, quoted(sibling_program(kControl)) + " {port}",
                               options_for(cpus));
}

Server start_nginx(const ScratchFolder& folder, const Cpus& cpus) {
  const std::string base = folder.path() + "/nginx.conf";
  std::string text(kNginxConfiguration);
  for (std::size_t at = 0; (at = text.find("FOLDER", at)) != std::string::npos;) {
    text.replace(at, std::string_view("FOLDER").size(), folder.path());
  }
  const Descriptor file(::open((base + ".in").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  if (!file || !write_text(file.get(), text)) {
    throw std::system_error(errno, std::generic_category(), base);
  }
  // The port is known to the command only. Debian keeps nginx where ordinary users do not look.
  const std::string script = fmt::format(
      "PATH=$PATH:/usr/sbin; sed s/PORT/$1/ {0}.in >{0} && exec nginx -c {0} -e stderr", base);
  return Server::start_foreign(kNginx, fmt::format("sh -c {} sh {{port}}", quoted(script)),
                               options_for(cpus));
}

std::uint64_t cpu_at_rest(Server& server) {
  std::uint64_t before = server.accounting().cpu_ns();
  int same = 0;
  for (int look = 0; look < kLooks && same < kSame; ++look) {
    std::this_thread::sleep_for(kLook);
    const std::uint64_t now = server.accounting().cpu_ns();
    same = now == before ? same + 1 : 0;
    before = now;
  }
  return before;
}

std::string waiting_request(const std::string& kind, const std::string& topic) {
  const bool websocket = kind == "websocket";
  const std::string target = websocket       ? "/ws?topic=" + topic
                             : kind == "sse" ? "/topics/" + topic + "/events"
                                             : "/topics/" + topic + "?max_wait=300s";
  // The key is that of RFC 6455, 1.3.
  return fmt::format("GET {} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", target,
                     websocket ? "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                                 "Sec-WebSocket-Version: 13\r\n"
                                 "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                               : "");
}

std::string sse_bytes(const std::string& id, const std::string& data) {
  const std::string event = fmt::format("id: {}\ndata: {}\n\n", id, data);
  return fmt::format("{:x}\r\n{}\r\n", event.size(), event);
}

std::string websocket_bytes(const std::string& id, const std::string& topic,
                            const std::string& data) {
  const std::string json =
      fmt::format(R"({{"op":"message","id":"{}","topic":"{}","data":"{}"}})", id, topic, data);
  constexpr std::size_t kShort = 126;  // RFC 6455, 5.2: from here on the length has two more bytes
  std::string frame = "\x81";
  if (json.size() < kShort) {
    frame += static_cast<char>(json.size());
  } else {
    frame += static_cast<char>(kShort);
    frame += static_cast<char>(json.size() >> 8);
    frame += static_cast<char>(json.size() & 0xff);
  }
  return frame + json;
}

}  // namespace echolab::harness
