// Gemma 4's notation for tools, their calls and results: private to this room.
#pragma once

#include <string>

#include "text/chat.h"

namespace sluice {

// declaration:NAME{description:...,parameters:{...}}
Status gemma4_declaration(const Json& tool, RenderedPrompt& out);
// <|tool_call>call:NAME{...}<tool_call|>
void gemma4_call(const ToolCall& call, RenderedPrompt& out);
// <|tool_response>response:NAME{...}<tool_response|>; null stands for no result at all.
void gemma4_response(const std::string& name, const Json* response, RenderedPrompt& out);

}  // namespace sluice
