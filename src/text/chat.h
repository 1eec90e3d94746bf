// Chat formats: a conversation becomes the prompt that a family of models was trained on.
//
// Each family has a native renderer (chat_qwen3.cc, chat_gemma4.cc, chat_harmony.cc) that gives
// exactly the text of the published Jinja template. Unlike a template's text, a RenderedPrompt
// remembers which parts the format wrote (control) and which parts people and tools wrote
// (content), so that an <|im_end|> typed by a user is text and never ends a turn.
//
// Where a published template would fail or print a Python object, the renderers do the useful
// thing instead: lists of text parts are joined, absent content of a message with tool calls is
// empty. What cannot be rendered is refused with a sentence that names the message.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tokenizer/tokenizer.h"

namespace sluice {

// Keeps the order of keys: templates print tools and arguments in the order they came in.
using Json = nlohmann::ordered_json;

enum class ChatFormat {
  kQwen3,    // hybrid thinking ChatML
  kGemma4,   // <|turn>, <|channel>, tools without JSON
  kHarmony,  // gpt-oss; follows the published template, which quotes tool results as JSON
  kChatMl,   // plain <|im_start|>role ... <|im_end|>, without tools
};
// The format of a config.json's model_type ("qwen3_moe", "gemma4", "gemma4_text", "gpt_oss").
Result<ChatFormat> chat_format_of(std::string_view model_type);
// The same for a model whose tokenizer is known: without a token for <think>, Qwen3's format is
// plain ChatML.
Result<ChatFormat> chat_format_of(std::string_view model_type, const Tokenizer& tokenizer);

struct ToolCall {
  std::optional<std::string> id;
  std::string name;
  Json arguments;  // an object or, as OpenAI's wire format has it, a string of JSON
  std::string content_type = "json";  // harmony only
};

struct ChatMessage {
  std::string role;  // system, developer, user, assistant or tool
  Json content;      // null, a string, or a list of parts {"type": "text", "text": ...}
  std::optional<std::string> reasoning;
  std::vector<ToolCall> tool_calls;         // assistant
  Json tool_responses;                      // assistant, Gemma's own form: [{"name", "response"}]
  std::optional<std::string> tool_call_id;  // tool
  std::optional<std::string> name;          // tool
};

struct ChatRequest {
  std::vector<ChatMessage> messages;  // at least one
  Json tools;                         // null or a list of {"type": "function", "function": ...}
  bool add_generation_prompt = true;
  std::optional<bool> enable_thinking;          // Qwen3: on unless false; Gemma 4: off unless true
  std::optional<std::string> reasoning_effort;  // harmony: medium if absent
  std::optional<std::string> current_date;      // harmony, YYYY-MM-DD: today (local) if absent
};

struct PromptSegment {
  std::string text;
  bool is_control;
};

class RenderedPrompt {
 public:
  void control(std::string_view text) { add(text, true); }
  void content(std::string_view text) { add(text, false); }
  void append(const RenderedPrompt& other);

  const std::vector<PromptSegment>& segments() const { return segments_; }
  std::string to_string() const;
  // The ids: control tokens only from control segments; ordinary text on both sides of a boundary
  // is encoded as one piece, as if the whole prompt had been.
  std::vector<int32_t> encode(const Tokenizer& tokenizer) const;

 private:
  void add(std::string_view text, bool is_control);
  std::vector<PromptSegment> segments_;  // never empty ones, never two of a kind in a row
};

Result<RenderedPrompt> render_chat(ChatFormat format, const ChatRequest& request);

}  // namespace sluice
