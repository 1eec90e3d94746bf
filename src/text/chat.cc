#include "text/chat.h"

#include <algorithm>
#include <array>

#include "text/chat_render.h"

namespace sluice {
namespace {

Status check_parts(const Json& content, std::string_view where) {
  for (const Json& part : content) {
    const Json* const type = member(&part, "type");
    if (type == nullptr || !type->is_string())
      return invalid_argument("{}: a content part needs a \"type\"", where);
    if (!is_string(type, "text")) continue;
    const Json* const text = member(&part, "text");
    if (text == nullptr || !text->is_string())
      return invalid_argument("{}: a text part needs a string \"text\"", where);
  }
  return ok_status();
}

Status check_message(const ChatMessage& message, size_t index) {
  static constexpr std::array<std::string_view, 5> kRoles = {"system", "developer", "user",
                                                             "assistant", "tool"};
  const std::string where = fmt::format("message {} ({})", index, message.role);
  if (std::find(kRoles.begin(), kRoles.end(), message.role) == kRoles.end())
    return invalid_argument(
        "message {}: the role \"{}\" is not one of system, developer, user, assistant, tool", index,
        message.role);
  if (message.content.is_array()) return check_parts(message.content, where);
  if (message.content.is_string()) return ok_status();
  if (!message.content.is_null())
    return invalid_argument("{}: content must be a string or a list of parts", where);
  if (message.tool_calls.empty() && message.tool_responses.is_null())
    return invalid_argument("{}: no content", where);
  return ok_status();
}

}  // namespace

Result<ChatFormat> chat_format_of(std::string_view model_type) {
  if (model_type == "qwen3_moe" || model_type == "qwen3") return ChatFormat::kQwen3;
  if (model_type == "gemma4" || model_type == "gemma4_text") return ChatFormat::kGemma4;
  if (model_type == "gpt_oss") return ChatFormat::kHarmony;
  return unimplemented(
      "model_type \"{}\" has no chat format here; known are qwen3_moe, gemma4, gemma4_text, "
      "gpt_oss",
      model_type);
}

Result<ChatFormat> chat_format_of(std::string_view model_type, const Tokenizer& tokenizer) {
  SLUICE_ASSIGN_OR_RETURN(const ChatFormat format, chat_format_of(model_type));
  const bool thinks = tokenizer.id_of("<think>").has_value();
  return format == ChatFormat::kQwen3 && !thinks ? ChatFormat::kChatMl : format;
}

void RenderedPrompt::add(std::string_view text, bool is_control) {
  if (text.empty()) return;
  if (!segments_.empty() && segments_.back().is_control == is_control) {
    segments_.back().text += text;
  } else {
    segments_.push_back({std::string(text), is_control});
  }
}

void RenderedPrompt::append(const RenderedPrompt& other) {
  for (const PromptSegment& segment : other.segments_) add(segment.text, segment.is_control);
}

std::string RenderedPrompt::to_string() const {
  std::string out;
  for (const PromptSegment& segment : segments_) out += segment.text;
  return out;
}

std::vector<int32_t> RenderedPrompt::encode(const Tokenizer& tokenizer) const {
  std::vector<TextRun> runs;
  for (const PromptSegment& segment : segments_)
    runs.push_back(
        {segment.text, segment.is_control ? AddedTokens::kAll : AddedTokens::kVocabulary});
  return tokenizer.encode_runs(runs);
}

Result<RenderedPrompt> render_chat(ChatFormat format, const ChatRequest& request) {
  if (request.messages.empty())
    return invalid_argument("a conversation needs at least one message");
  if (!request.tools.is_null() && !request.tools.is_array())
    return invalid_argument("tools must be a list");
  for (size_t i = 0; i < request.messages.size(); ++i)
    SLUICE_RETURN_IF_ERROR(check_message(request.messages[i], i));
  switch (format) {
    case ChatFormat::kQwen3:
      return render_qwen3(request);
    case ChatFormat::kGemma4:
      return render_gemma4(request);
    case ChatFormat::kHarmony:
      return render_harmony(request);
    case ChatFormat::kChatMl:
      return render_chatml(request);
  }
  return internal_error("render_chat: no such format");
}

}  // namespace sluice
