// A conversation as JSON, in the shape of the OpenAI API and of transformers' apply_chat_template.
#pragma once

#include <string>
#include <string_view>

#include "text/chat.h"

namespace sluice {

// {"messages": [...], "tools", "add_generation_prompt", "enable_thinking", "reasoning_effort",
// "current_date"}; other members are passed over. A message's reasoning is read from
// "reasoning_content", "thinking" or "reasoning". Strict JSON; keys keep their order. `where` names
// the text in messages.
Result<ChatRequest> parse_chat_request(std::string_view json, std::string_view where);

// The same from a value that was parsed already.
Result<ChatRequest> chat_request_of(const Json& value, std::string_view where);

}  // namespace sluice
