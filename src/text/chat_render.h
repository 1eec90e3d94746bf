// What the renderers of chat formats share: private to this room.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/chat.h"

namespace sluice {

// The messages are checked (known roles, content where it is needed, at least one).
Result<RenderedPrompt> render_qwen3(const ChatRequest& request);
Result<RenderedPrompt> render_gemma4(const ChatRequest& request);
Result<RenderedPrompt> render_harmony(const ChatRequest& request);
Result<RenderedPrompt> render_chatml(const ChatRequest& request);

// A message's text: a string, or the text parts of a list joined; empty if there is none.
std::string text_of(const ChatMessage& message);
bool has_tools(const ChatRequest& request);

// JSON values as Jinja2 sees them. A null pointer is an undefined value.
const Json* member(const Json* value, const char* key);  // null unless an object that has the key
bool truthy(const Json* value);
bool is_string(const Json* value, std::string_view text);
std::string python_text(const Json* value);  // str(value)
std::string python_json(const Json& value);  // json.dumps(value, ensure_ascii=False)
std::string upper_case(std::string text);    // of ASCII letters
// The members of an object, sorted by key without regard to case (Jinja's dictsort).
std::vector<std::pair<std::string, const Json*>> sorted_members(const Json& object);

std::string_view strip_white_space(std::string_view text);  // Python's str.strip()
std::string_view strip_newlines(std::string_view text, bool left, bool right);

}  // namespace sluice
