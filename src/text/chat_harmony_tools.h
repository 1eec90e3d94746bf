// Tool declarations of gpt-oss as TypeScript: private to this room.
#pragma once

#include "text/chat.h"

namespace sluice {

// namespace functions { ... } with one type per tool.
Status harmony_namespace(const Json& tools, RenderedPrompt& out);

}  // namespace sluice
