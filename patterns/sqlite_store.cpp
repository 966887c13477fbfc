#include "patterns/sqlite_store.hpp"

#include <fmt/format.h>
#include <sqlite3.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

namespace echolab::patterns {
namespace {

using Verb = SessionRequest::Verb;
using Error = SessionOutcome::Error;

constexpr int kApplicationId = 0x6563686f;  // "echo": says whose file it is
constexpr int kPageSize = 4096;             // bytes; SQLite's default, set so that `file` holds

struct CloseDatabase {
  void operator()(sqlite3* db) const { sqlite3_close(db); }
};
struct Finalize {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using Database = std::unique_ptr<sqlite3, CloseDatabase>;
using Statement = std::unique_ptr<sqlite3_stmt, Finalize>;

// The connection, its statements and what they mean. One thread.
class SessionTable {
 public:
  SessionTable(const std::string& file, const SessionLimits& limits) : limits_(limits) {
    sqlite3* db = nullptr;
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    const int rc = sqlite3_open_v2(file.c_str(), &db, flags, nullptr);
    db_.reset(db);  // also if it failed
    const auto fail = [&](const char* why) {
      throw std::runtime_error(fmt::format("cannot keep sessions in {}: {}", file, why));
    };
    const auto must = [&](int code) {
      if (code != SQLITE_OK) fail(sqlite3_errmsg(db));
    };
    const auto value = [&](const char* sql) {
      const Statement s = prepare(sql);
      if (!s || sqlite3_step(s.get()) != SQLITE_ROW) fail(sqlite3_errmsg(db));
      return std::string(reinterpret_cast<const char*>(sqlite3_column_text(s.get(), 0)));
    };
    must(rc);
    const auto busy = std::chrono::ceil<std::chrono::milliseconds>(limits.busy).count();
    must(sqlite3_busy_timeout(db, static_cast<int>(busy)));
    if (value("PRAGMA application_id") != std::to_string(kApplicationId) &&
        value("SELECT count(*) FROM sqlite_schema") != "0") {
      fail("it is a database of something else");
    }
    must(run(fmt::format("PRAGMA page_size = {}", kPageSize)));
    if (value("PRAGMA journal_mode = WAL") != "wal") fail("no write-ahead log on its file system");
    must(
        run(fmt::format("PRAGMA synchronous = FULL; PRAGMA max_page_count = {};"
                        "BEGIN IMMEDIATE; PRAGMA application_id = {};"
                        "CREATE TABLE IF NOT EXISTS session (id TEXT PRIMARY KEY,"
                        " count INTEGER NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;"
                        "COMMIT;",
                        std::max<std::size_t>(1, limits.file / kPageSize), kApplicationId)));
    rows_ = std::stoull(value("SELECT count(*) FROM session"));
    insert_ = prepare("INSERT INTO session (id, count, used) VALUES (?1, 0, ?2)");
    read_ = prepare("SELECT count FROM session WHERE id = ?1 AND used > ?3");
    increment_ = prepare(
        "UPDATE session SET count = count + 1, used = ?2 WHERE id = ?1 AND used > ?3"
        " RETURNING count");
    if (!insert_ || !read_ || !increment_) fail(sqlite3_errmsg(db));
  }

  bool begin() { return run("BEGIN IMMEDIATE") == SQLITE_OK; }
  bool commit() {
    if (run("COMMIT") != SQLITE_OK) return false;
    rows_ += inserted_;
    inserted_ = 0;
    return true;
  }
  void roll_back() {
    if (sqlite3_get_autocommit(db_.get()) == 0) run("ROLLBACK");
    inserted_ = 0;
  }

  // `now` in seconds. busy: a transaction around it must be rolled back.
  SessionOutcome ask(Verb verb, const std::string& id, std::int64_t now) {
    if (verb == Verb::create && rows_ + inserted_ >= limits_.sessions) return {Error::full, {}, 0};
    const std::int64_t ttl = std::chrono::ceil<std::chrono::seconds>(limits_.ttl).count();
    sqlite3_stmt* s = verb == Verb::create ? insert_.get()
                      : verb == Verb::read ? read_.get()
                                           : increment_.get();
    sqlite3_bind_text(s, 1, id.data(), static_cast<int>(id.size()), SQLITE_STATIC);
    if (verb != Verb::read) sqlite3_bind_int64(s, 2, now);
    if (verb != Verb::create) sqlite3_bind_int64(s, 3, now - ttl);
    SessionOutcome outcome{Error::none, id, 0};
    int rc = sqlite3_step(s);
    if (rc == SQLITE_ROW) {
      outcome.count = static_cast<std::uint64_t>(sqlite3_column_int64(s, 0));
      rc = sqlite3_step(s);  // to its end: only then has an UPDATE done all its work
    } else if (rc == SQLITE_DONE && verb != Verb::create) {
      outcome = {Error::unknown, {}, 0};
    }
    if (rc != SQLITE_DONE) outcome = {Error::busy, {}, 0};
    sqlite3_reset(s);
    sqlite3_clear_bindings(s);
    if (rc == SQLITE_DONE && verb == Verb::create) ++inserted_;
    return outcome;
  }

  // Makes room, if there is something to sweep; looks at all, and therefore at most once a minute.
  void sweep(std::int64_t now) {
    if (rows_ < limits_.sessions || now < swept_ + 60) return;
    swept_ = now;
    const std::int64_t ttl = std::chrono::ceil<std::chrono::seconds>(limits_.ttl).count();
    if (run(fmt::format("DELETE FROM session WHERE used <= {}", now - ttl)) != SQLITE_OK) return;
    rows_ -= std::min(rows_, static_cast<std::size_t>(sqlite3_changes(db_.get())));
  }

  [[nodiscard]] std::size_t rows() const { return rows_; }

 private:
  int run(const std::string& sql) {
    return sqlite3_exec(db_.get(), sql.c_str(), nullptr, nullptr, nullptr);
  }
  Statement prepare(const char* sql) {
    sqlite3_stmt* statement = nullptr;
    sqlite3_prepare_v3(db_.get(), sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
    return Statement(statement);
  }

  const SessionLimits limits_;
  Database db_;
  Statement insert_, read_, increment_;
  std::size_t rows_ = 0;      // committed
  std::size_t inserted_ = 0;  // by this transaction
  std::int64_t swept_ = 0;    // seconds
};

// An outcome as a post's frame: error, count (host order: it stays in this process), id.
Frame pack(const SessionOutcome& outcome) {
  std::vector<std::byte> bytes(1 + sizeof outcome.count + outcome.id.size());
  bytes[0] = static_cast<std::byte>(outcome.error);
  std::memcpy(bytes.data() + 1, &outcome.count, sizeof outcome.count);
  std::memcpy(bytes.data() + 1 + sizeof outcome.count, outcome.id.data(), outcome.id.size());
  return std::make_shared<const std::vector<std::byte>>(std::move(bytes));
}

SessionOutcome unpack(const std::vector<std::byte>& bytes) {
  SessionOutcome outcome;
  outcome.error = static_cast<Error>(bytes[0]);
  std::memcpy(&outcome.count, bytes.data() + 1, sizeof outcome.count);
  const std::size_t head = 1 + sizeof outcome.count;
  outcome.id.assign(reinterpret_cast<const char*>(bytes.data()) + head, bytes.size() - head);
  return outcome;
}

// One request that waits for the worker. When its client goes, the answer's post finds nobody.
class Waiting final : public Pending {
 public:
  Waiting(Verb verb, std::uint64_t ticket) : verb_(verb), ticket_(ticket) {}
  void on_post(Answer& answer, const Post& post) override {
    if (post.topic == ticket_) answer.send(respond(verb_, unpack(*post.frame)));
  }

 private:
  Verb verb_;
  std::uint64_t ticket_;
};

class SqliteSessions final : public SessionStore {
 public:
  SqliteSessions(const SessionLimits& limits, RandomSource random, const std::string& file,
                 const WallClock& clock, Poster& poster, Tickets& tickets)
      : limits_(limits),
        random_(std::move(random)),
        clock_(clock),
        poster_(poster),
        tickets_(tickets),
        table_(file, limits),
        worker_([this](const std::stop_token& stop) { work(stop); }) {}

  void ask(SessionRequest request, Answer& answer) override {
    const auto now = std::chrono::duration_cast<std::chrono::seconds>(
        clock_.at(answer.now()).time_since_epoch());
    const std::uint64_t ticket = tickets_.take();
    const Verb verb = request.verb;
    if (verb == Verb::create) request.id = random_id(random_);
    {
      const std::lock_guard lock(mutex_);
      if (queue_.size() < limits_.queue) {
        queue_.push_back({std::move(request), now.count(), answer.id(), ticket});
        arrived_.notify_one();
        return answer.wait(std::make_unique<Waiting>(verb, ticket));
      }
    }
    answer.send(respond(verb, {Error::busy, {}, 0}));
  }

  void add_metrics(MetricsText& text) const override {
    using Type = MetricsText::Type;
    const auto of = [](const std::atomic<std::uint64_t>& n) {
      return n.load(std::memory_order_relaxed);
    };
    text.add("echolab_sessions", Type::gauge, "Sessions kept in the store.", of(rows_));
    text.add("echolab_session_transactions_total", Type::counter, "Transactions committed.",
             of(committed_));
    text.add("echolab_session_transactions_failed_total", Type::counter,
             "Transactions rolled back: busy, full or broken.", of(failed_));
    const std::lock_guard lock(mutex_);
    text.add("echolab_session_queue", Type::gauge, "Requests that wait for the store.",
             queue_.size());
  }

 private:
  struct Item {
    SessionRequest request;
    std::int64_t now;  // seconds since 1970
    ConnId asker;
    std::uint64_t ticket;
  };

  void work(const std::stop_token& stop) {
    for (;;) {
      std::vector<Item> batch;
      {
        std::unique_lock lock(mutex_);
        arrived_.wait(lock, stop, [&] { return !queue_.empty(); });
        if (queue_.empty()) return;  // told to stop, and all are answered
        while (!queue_.empty() && batch.size() < std::max<std::size_t>(1, limits_.batch)) {
          batch.push_back(std::move(queue_.front()));
          queue_.pop_front();
        }
      }
      const std::vector<SessionOutcome> outcomes = serve(batch);
      rows_.store(table_.rows(), std::memory_order_relaxed);
      for (std::size_t i = 0; i < batch.size(); ++i) {
        poster_.post(std::span(&batch[i].asker, 1), {batch[i].ticket, pack(outcomes[i])});
      }
    }
  }

  // All writes in one transaction, then the reads, which see it.
  std::vector<SessionOutcome> serve(const std::vector<Item>& batch) {
    std::vector<SessionOutcome> outcomes(batch.size());
    const auto writes = [](const Item& item) { return item.request.verb != Verb::read; };
    if (std::any_of(batch.begin(), batch.end(), writes)) {
      table_.sweep(batch.back().now);
      bool good = table_.begin();
      for (std::size_t i = 0; good && i < batch.size(); ++i) {
        if (!writes(batch[i])) continue;
        outcomes[i] = ask(batch[i]);
        good = outcomes[i].error != Error::busy;
      }
      good = good && table_.commit();
      (good ? committed_ : failed_).fetch_add(1, std::memory_order_relaxed);
      if (!good) {
        table_.roll_back();
        for (std::size_t i = 0; i < batch.size(); ++i) {
          if (writes(batch[i])) outcomes[i] = {Error::busy, {}, 0};
        }
      }
    }
    for (std::size_t i = 0; i < batch.size(); ++i) {
      if (!writes(batch[i])) outcomes[i] = ask(batch[i]);
    }
    return outcomes;
  }

  SessionOutcome ask(const Item& item) {
    return table_.ask(item.request.verb, item.request.id, item.now);
  }

  const SessionLimits limits_;
  const RandomSource random_;
  const WallClock clock_;
  Poster& poster_;
  Tickets& tickets_;
  SessionTable table_;  // the worker's, once it runs
  std::atomic<std::uint64_t> rows_{0};
  std::atomic<std::uint64_t> committed_{0};
  std::atomic<std::uint64_t> failed_{0};

  mutable std::mutex mutex_;
  std::condition_variable_any arrived_;
  std::deque<Item> queue_;
  std::jthread worker_;  // the last member: its end is waited for first
};

}  // namespace

std::unique_ptr<SessionStore> make_sqlite_sessions(const SessionLimits& limits, RandomSource random,
                                                   const std::string& file, const WallClock& clock,
                                                   Poster& poster, Tickets& tickets) {
  return std::make_unique<SqliteSessions>(limits, std::move(random), file, clock, poster, tickets);
}

}  // namespace echolab::patterns
