// Sessions in SQLite: an external store, as far as the server's threads see it. One worker thread
// owns the connection; requests wait for it in a bounded queue and are answered by a post.
//
// What is acknowledged is committed. The journal is a write-ahead log with synchronous=FULL: each
// commit is on the disk before its answers go out, so that it survives kill -9 and, as far as the
// disk keeps its word, a loss of power. (NORMAL would survive kill -9 too, for the page cache
// outlives the process, but a loss of power could take back increments that were acknowledged.)
// The price is one fsync a transaction, and everything that waits at its start shares it (group
// commit). If the transaction fails (busy, disk full, I/O error), it is rolled back and all in it
// get 503.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "patterns/sessions.hpp"
#include "patterns/tickets.hpp"

namespace echolab::patterns {

// Opens or creates the file. Throws std::runtime_error if that cannot be done, or if it is not
// ours. The destructor answers what is queued; the poster must live until then.
std::unique_ptr<SessionStore> make_sqlite_sessions(const SessionLimits&, RandomSource,
                                                   const std::string& file, const WallClock&,
                                                   Poster&, Tickets&);

}  // namespace echolab::patterns
