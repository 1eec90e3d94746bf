// gpt-oss: the harmony format, as the published template renders it.
//
// The template and the openai-harmony library differ: the template prints tool results and
// arguments as JSON (so a string result is quoted), names the recipient of a call in the role part
// and ends the instructions with an empty line. This renderer follows the template.
#include <ctime>

#include "text/chat_harmony_tools.h"
#include "text/chat_render.h"

namespace sluice {
namespace {

std::string today() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  ::localtime_r(&now, &local);
  return fmt::format("{:04}-{:02}-{:02}", local.tm_year + 1900, local.tm_mon + 1, local.tm_mday);
}

void system_message(const ChatRequest& request, RenderedPrompt& out) {
  out.control(
      "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
      "Knowledge cutoff: 2024-06\nCurrent date: ");
  out.content(request.current_date ? *request.current_date : today());
  out.control("\n\nReasoning: ");
  out.content(request.reasoning_effort.value_or("medium"));
  out.control(
      "\n\n# Valid channels: analysis, commentary, final. Channel must be included for every "
      "message.");
  if (has_tools(request))
    out.control("\nCalls to these tools must go to the commentary channel: 'functions'.");
  out.control("<|end|>");
}

Status developer_message(const ChatRequest& request, const std::string& instructions,
                         RenderedPrompt& out) {
  if (instructions.empty() && !has_tools(request)) return ok_status();
  out.control("<|start|>developer<|message|>");
  if (!instructions.empty()) {
    out.control("# Instructions\n\n");
    out.content(instructions);
    out.control("\n\n");
  }
  if (has_tools(request)) {
    out.control("# Tools\n\n");
    SLUICE_RETURN_IF_ERROR(harmony_namespace(request.tools, out));
  }
  out.control("<|end|>");
  return ok_status();
}

// The last assistant message without tool calls; messages.size() stands for none. Analysis is shown
// only while a tool loop is open: once a final answer followed, it is dropped.
size_t last_final(const std::vector<ChatMessage>& messages) {
  for (size_t i = messages.size(); i-- > 0;)
    if (messages[i].role == "assistant" && messages[i].tool_calls.empty()) return i;
  return messages.size();
}

void analysis(const std::string& text, RenderedPrompt& out) {
  out.control("<|start|>assistant<|channel|>analysis<|message|>");
  out.content(text);
  out.control("<|end|>");
}

Status tool_call_message(const ChatMessage& message, bool drop_analysis, size_t index,
                         RenderedPrompt& out) {
  const std::string content = text_of(message);
  const std::string reasoning = message.reasoning.value_or("");
  if (!content.empty() && !reasoning.empty())
    return invalid_argument(
        "message {}: an assistant message with tool calls may have content or "
        "reasoning, not both",
        index);
  if (!drop_analysis && !(content.empty() && reasoning.empty()))
    analysis(content.empty() ? reasoning : content, out);
  const ToolCall& call = message.tool_calls[0];  // the format has one call per message
  out.control("<|start|>assistant to=functions.");
  out.content(call.name);
  out.control("<|channel|>commentary ");
  out.content(call.content_type);
  out.control("<|message|>");
  out.content(python_json(call.arguments));
  out.control("<|call|>");
  return ok_status();
}

Status check_channels(const ChatMessage& message, size_t index) {
  const std::string reasoning = message.reasoning.value_or("");
  for (const std::string_view tag :
       {"<|channel|>analysis<|message|>", "<|channel|>final<|message|>"})
    for (const std::string& text : {text_of(message), reasoning})
      if (text.find(tag) != std::string::npos)
        return invalid_argument(
            "message {}: contains {}; pass the analysis as reasoning and the "
            "final text as content",
            index, tag);
  return ok_status();
}

}  // namespace

Result<RenderedPrompt> render_harmony(const ChatRequest& request) {
  RenderedPrompt out;
  system_message(request, out);
  const auto& messages = request.messages;
  const bool instructed = messages[0].role == "developer" || messages[0].role == "system";
  SLUICE_RETURN_IF_ERROR(
      developer_message(request, instructed ? text_of(messages[0]) : std::string(), out));
  const size_t final = last_final(messages);
  const std::string* last_call = nullptr;
  for (size_t i = instructed ? 1 : 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    const bool last = i + 1 == messages.size();
    if (message.role == "assistant") {
      SLUICE_RETURN_IF_ERROR(check_channels(message, i));
      if (!message.tool_calls.empty()) {
        SLUICE_RETURN_IF_ERROR(
            tool_call_message(message, final != messages.size() && final > i, i, out));
        last_call = &message.tool_calls[0].name;
        continue;
      }
      const bool training = last && !request.add_generation_prompt;
      if (training && message.reasoning) analysis(*message.reasoning, out);
      out.control("<|start|>assistant<|channel|>final<|message|>");
      out.content(text_of(message));
      out.control(training ? "<|return|>" : "<|end|>");
      if (!training) last_call = nullptr;
    } else if (message.role == "tool") {
      if (last_call == nullptr)
        return invalid_argument(
            "message {}: a tool result without an assistant message with a "
            "tool call before it",
            i);
      out.control("<|start|>functions.");
      out.content(*last_call);
      out.control(" to=assistant<|channel|>commentary<|message|>");
      out.content(python_json(message.content.is_null() ? Json("") : message.content));
      out.control("<|end|>");
    } else if (message.role == "user") {
      out.control("<|start|>user<|message|>");
      out.content(text_of(message));
      out.control("<|end|>");
    }  // later system and developer messages have no place in the template
  }
  if (request.add_generation_prompt) out.control("<|start|>assistant");
  return out;
}

}  // namespace sluice
