// One message compressed on its own (RFC 7692, 7.2: raw DEFLATE, the last empty block's tail left
// out, no context taken over), by zlib. Any thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace echolab::patterns {

// Throws std::bad_alloc.
std::string deflate_message(std::string_view);

// Decompresses one message, given in pieces. Costs about 40 KiB while it lives.
class Inflater {
 public:
  enum class Result { ok, corrupt, too_big };

  Inflater();  // throws std::bad_alloc
  // Appends what comes out to `message`, never more than `limit` bytes in all: too_big.
  Result add(std::string_view piece, std::string& message, std::size_t limit);
  // After the last piece: corrupt, if the message ends in the midst of a block.
  Result finish(std::string& message, std::size_t limit);

 private:
  struct Stream;
  struct End {
    void operator()(Stream*) const;
  };
  std::unique_ptr<Stream, End> stream_;
  bool at_end_ = false;  // right behind a block that says that it is the last one
};

}  // namespace echolab::patterns
