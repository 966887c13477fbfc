#include "tests/topic_clients.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace echolab::test {

using nlohmann::json;

void Ledger::add(const std::string& topic, std::uint64_t number, const std::string& payload) {
  const std::scoped_lock lock(mutex_);
  for (const std::string& name : {topic, std::string("*")}) {
    topics_[name][number] = payload;
    ends_[name] = std::max(ends_[name], number);
  }
}

void Ledger::doubt(const std::string& topic, const std::string& payload) {
  const std::scoped_lock lock(mutex_);
  doubtful_[payload] = topic;
}

void Ledger::found(std::uint64_t number, const std::string& payload) {
  const std::scoped_lock lock(mutex_);
  const auto doubted = doubtful_.find(payload);
  if (doubted == doubtful_.end()) return;
  topics_[doubted->second].emplace(number, payload);
  topics_["*"].emplace(number, payload);
}

Ledger::Numbers Ledger::of(const std::string& topic) const {
  const std::scoped_lock lock(mutex_);
  const auto found = topics_.find(topic);
  return found == topics_.end() ? Numbers{} : found->second;
}

std::optional<std::uint64_t> Ledger::end_of(const std::string& topic) const {
  if (publishing > 0) return std::nullopt;
  const std::scoped_lock lock(mutex_);
  const auto found = ends_.find(topic);
  return found == ends_.end() ? 0 : found->second;
}

std::uint64_t number_of(const std::string& id) {
  const std::size_t dash = id.find('-');
  if (dash != 8) throw std::runtime_error("not an id: " + id);
  return std::stoull(id.substr(dash + 1));
}

// ---- actors -----------------------------------------------------------------------------------

bool TopicActor::step() noexcept {
  try {
    if (progress_ == kNever) progress();
    if (world_.now() - progress_ > kPatience) throw std::runtime_error("it does not get on");
    return act();
  } catch (const std::exception& error) {
    wrong = error.what();
    return false;
  }
}

void TopicActor::connect(PeerOptions options) {
  peer_ = world_.connect(options);
}

void TopicActor::disconnect() {
  const std::uint64_t how = below(3);
  if (how == 0) peer_->reset();
  if (how == 1) peer_->half_close();
  peer_->close();
  peer_.reset();
}

void TopicActor::send(const std::string& text) {
  peer_->send(blob_of(text));
}

std::string TopicActor::receive(std::size_t most) {
  peer_->wait(true, false, 5ms);
  const Blob bytes = peer_->read_some(most);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// ---- publishers -------------------------------------------------------------------------------

TopicPublisher::TopicPublisher(World& world, std::uint64_t seed, Ledger& ledger, std::string name,
                               std::vector<std::string> topics, std::size_t messages)
    : TopicActor(world, seed),
      ledger_(ledger),
      name_(std::move(name)),
      topics_(std::move(topics)),
      messages_(messages) {
  ++ledger_.publishing;
}

TopicPublisher::Publication TopicPublisher::next() {
  Publication next;
  next.topic = topics_[below(topics_.size())];
  if (one_in(2)) next.key = fmt::format("k{}", below(3));
  // Its own sequence number, and enough more to fill buffers.
  next.payload = fmt::format("{} {} ", name_, made_++) + std::string(below(8 * 1024), 'x');
  return next;
}

void TopicPublisher::acknowledged(const Publication& publication, const std::string& id) {
  progress();
  ledger_.add(publication.topic, number_of(id), publication.payload);
  if (++acknowledged_ == messages_) ledger_.publisher_done();
}

bool PostPublisher::act() {
  if (!peer_) connect();
  if (!publication_) publication_ = next();
  if (!waiting_) {
    const std::string& payload = publication_->payload;
    send(fmt::format("POST /topics/{}?key={} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{}",
                     publication_->topic, publication_->key, payload.size(), payload));
    response_ = ResponseReader();
    waiting_ = true;
    // Only here: who leaves again and again while it waits for its turn never gets it.
    if (one_in(20)) {
      ledger().doubt(publication_->topic, publication_->payload);
      disconnect();
      waiting_ = false;
      return true;
    }
  }
  response_.feed(receive(64 * 1024));
  if (peer_->state() != Peer::State::open) throw std::runtime_error("a publisher was cut off");
  if (!response_.complete()) return true;
  progress();
  waiting_ = false;
  if (response_.status == 503) return true;  // a subscriber held the topic up: once more
  if (response_.status != 200) throw std::runtime_error("not published: " + response_.body);
  acknowledged(*publication_, json::parse(response_.body).at("id"));
  publication_.reset();
  if (one_in(20)) disconnect();
  return !done();
}

// ---- subscribers ------------------------------------------------------------------------------

void TopicSubscriber::message(const std::string& id, const std::string& payload) {
  progress();
  const std::uint64_t number = number_of(id);
  messages_.emplace_back(number, payload);
  seen(number);
}

void TopicSubscriber::gap(const std::string& first, const std::string& last) {
  progress();
  gaps_.emplace_back(number_of(first), number_of(last));
  seen(number_of(last));
}

bool TopicSubscriber::done() const {
  const auto end = ledger_.end_of(topic_);
  return end && seen_ >= *end;
}

bool TopicSubscriber::leave(bool heard) {
  if (peer_->state() == Peer::State::open && !one_in(heard ? 20 : 1000)) return false;
  disconnect();
  ++resumes_;
  return true;
}

void TopicSubscriber::report(Ledger& ledger) const {
  for (const auto& [number, payload] : messages_) ledger.found(number, payload);
}

Account TopicSubscriber::account() {
  Account account;
  Ledger::Numbers truth = ledger_.of(topic_);
  std::map<std::uint64_t, std::size_t> delivered;
  std::uint64_t last = 0;
  for (const auto& [number, payload] : messages_) {
    const auto found = truth.find(number);
    if (found == truth.end() || found->second != payload) {
      wrong = fmt::format("message {} was never published like this", number);
    }
    if (number <= last && delivered[number] == 0) wrong = fmt::format("{} is late", number);
    last = std::max(last, number);
    ++delivered[number];
  }
  // It was not there for what came behind the end.
  truth.erase(truth.upper_bound(ledger_.end_of(topic_).value_or(0)), truth.end());
  for (const auto& [number, payload] : truth) {
    const std::uint64_t n = number;
    const bool in_gap = std::any_of(gaps_.begin(), gaps_.end(), [&](const auto& gap) {
      return gap.first <= n && n <= gap.second;
    });
    const std::size_t times = delivered[number];
    if (times > 0) ++account.delivered;
    if (times > 1) account.duplicates += times - 1;
    if (times == 0 && in_gap) ++account.declared;
    if (times == 0 && !in_gap) ++account.lost;
  }
  if (account.duplicates > 0 && resumes_ == 0) wrong = "duplicates without a resume";
  return account;
}

bool StreamSubscriber::act() {
  if (done()) return false;
  if (!peer_) {
    constexpr int kBuffers[] = {0, 4096};
    connect({.receive_buffer = kBuffers[below(2)]});
    const std::string by_query = one_in(2) ? "&last_event_id=" + last_event_id_ : "";
    send(fmt::format("GET /topics/{}/events?policy={}{} HTTP/1.1\r\nHost: h\r\n{}\r\n", topic_,
                     patterns::name_of(policy_), by_query,
                     by_query.empty() ? "Last-Event-ID: " + last_event_id_ + "\r\n" : ""));
    response_ = ResponseReader();
    events_ = EventReader();
  }
  if (pause_ > 0) {
    --pause_;
    world_.pass(1ms);
    return true;
  }
  const std::string bytes = receive(1 + below(64 * 1024));
  response_.feed(bytes);
  if (response_.has_head() && response_.status != 200) {
    throw std::runtime_error(fmt::format("status {}: {}", response_.status, response_.body));
  }
  events_.feed(response_.take_body());
  for (const EventReader::Event& event : events_.take()) {
    if (event.type == "gap") {
      const json gap_data = json::parse(event.data);
      gap(gap_data.at("first"), gap_data.at("last"));
      if (gap_data.at("last") != event.id) throw std::runtime_error("a gap's id is not its last");
    } else if (topic_ == "*") {
      message(event.id, json::parse(event.data).at("data"));
    } else {
      message(event.id, event.data);
    }
  }
  if (!events_.last_event_id.empty()) last_event_id_ = events_.last_event_id;
  if (!leave(!bytes.empty()) && one_in(40)) pause_ = below(60);
  return true;
}

void PollSubscriber::take_answer() {
  waiting_ = false;
  if (response_.status == 204) {
    cursor_ = response_.field("Cursor");
    seen(number_of(cursor_));
    return;
  }
  if (response_.status != 200) throw std::runtime_error("status " + response_.body);
  const json answer = json::parse(response_.body);
  if (!answer.at("gap").is_null()) gap(answer["gap"].at("first"), answer["gap"].at("last"));
  for (const json& m : answer.at("messages")) message(m.at("id"), m.at("data"));
  cursor_ = answer.at("cursor");
  seen(number_of(cursor_));
}

bool PollSubscriber::act() {
  if (done()) return false;
  if (!peer_) {
    connect();
    waiting_ = false;
  }
  if (!waiting_) {
    constexpr std::size_t kMinBytes[] = {0, 1, 1, 20'000};
    send(
        fmt::format("GET /topics/{}?cursor={}&min_bytes={}&max_wait={} HTTP/1.1\r\nHost: h\r\n\r\n",
                    topic_, cursor_, kMinBytes[below(4)], below(50)));
    response_ = ResponseReader();
    waiting_ = true;
  }
  const std::string bytes = receive(1 + below(256 * 1024));
  response_.feed(bytes);
  if (response_.complete()) take_answer();
  leave(!bytes.empty());
  return true;
}

}  // namespace echolab::test
