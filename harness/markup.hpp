// Text in HTML and XML.
#pragma once

#include <string>
#include <string_view>

namespace echolab::harness {

// As text or in an attribute in double quotes. Not more: bytes that are no UTF-8 stay.
std::string markup_text(std::string_view);

}  // namespace echolab::harness
