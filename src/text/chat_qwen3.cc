// Qwen3's hybrid ChatML: tools as JSON in the system turn, <think> before the answer.
#include "text/chat_render.h"

namespace sluice {
namespace {

constexpr std::string_view kToolsIntro =
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are "
    "provided with function signatures within <tools></tools> XML tags:\n<tools>";
constexpr std::string_view kToolsOutro =
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, "
    "\"arguments\": <args-json-object>}\n</tool_call><|im_end|>\n";

void system_turn(const ChatRequest& request, RenderedPrompt& out) {
  const ChatMessage& first = request.messages[0];
  const bool has_system = first.role == "system";
  if (!has_tools(request)) {
    if (!has_system) return;
    out.control("<|im_start|>system\n");
    out.content(text_of(first));
    out.control("<|im_end|>\n");
    return;
  }
  out.control("<|im_start|>system\n");
  if (has_system) {
    out.content(text_of(first));
    out.control("\n\n");
  }
  out.control(kToolsIntro);
  for (const Json& tool : request.tools) {
    out.control("\n");
    out.content(python_json(tool));
  }
  out.control(kToolsOutro);
}

// The last message that a user really wrote: tool results may come dressed as user turns.
size_t last_query(const std::vector<ChatMessage>& messages) {
  for (size_t i = messages.size(); i-- > 0;) {
    if (messages[i].role != "user") continue;
    const std::string text = text_of(messages[i]);
    if (!(text.starts_with("<tool_response>") && text.ends_with("</tool_response>"))) return i;
  }
  return messages.size() - 1;
}

void tool_calls(const ChatMessage& message, bool has_content, RenderedPrompt& out) {
  bool newline = has_content;
  for (const ToolCall& call : message.tool_calls) {
    if (newline) out.control("\n");
    newline = true;
    out.control("<tool_call>\n{\"name\": \"");
    out.content(call.name);
    out.control("\", \"arguments\": ");
    out.content(call.arguments.is_string() ? call.arguments.get<std::string>()
                                           : python_json(call.arguments));
    out.control("}\n</tool_call>");
  }
}

void assistant_turn(const ChatMessage& message, bool after_query, bool last, RenderedPrompt& out) {
  std::string content = text_of(message);
  std::string reasoning;
  if (message.reasoning) {
    reasoning = *message.reasoning;
  } else if (const size_t end = content.find("</think>"); end != std::string::npos) {
    std::string_view before = strip_newlines(std::string_view(content).substr(0, end), false, true);
    if (const size_t start = before.rfind("<think>"); start != std::string_view::npos)
      before.remove_prefix(start + 7);
    reasoning = strip_newlines(before, true, false);
    content = strip_newlines(std::string_view(content).substr(content.rfind("</think>") + 8), true,
                             false);
  }
  out.control("<|im_start|>assistant\n");
  if (after_query && (last || !reasoning.empty())) {
    out.control("<think>\n");
    out.content(strip_newlines(reasoning, true, true));
    out.control("\n</think>\n\n");
    out.content(strip_newlines(content, true, false));
  } else {
    out.content(content);
  }
  tool_calls(message, !content.empty(), out);
  out.control("<|im_end|>\n");
}

}  // namespace

Result<RenderedPrompt> render_qwen3(const ChatRequest& request) {
  RenderedPrompt out;
  const auto& messages = request.messages;
  system_turn(request, out);
  const size_t query = last_query(messages);
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    if (message.role == "user" || (message.role == "system" && i > 0)) {
      out.control("<|im_start|>" + message.role + "\n");
      out.content(text_of(message));
      out.control("<|im_end|>\n");
    } else if (message.role == "assistant") {
      assistant_turn(message, i > query, i + 1 == messages.size(), out);
    } else if (message.role == "tool") {
      if (i == 0 || messages[i - 1].role != "tool") out.control("<|im_start|>user");
      out.control("\n<tool_response>\n");
      out.content(text_of(message));
      out.control("\n</tool_response>");
      if (i + 1 == messages.size() || messages[i + 1].role != "tool") out.control("<|im_end|>\n");
    }  // a developer message is no part of this format: the template leaves it out
  }
  if (request.add_generation_prompt) {
    out.control("<|im_start|>assistant\n");
    if (request.enable_thinking == false) out.control("<think>\n\n</think>\n\n");
  }
  return out;
}

Result<RenderedPrompt> render_chatml(const ChatRequest& request) {
  RenderedPrompt out;
  if (has_tools(request)) return invalid_argument("plain ChatML has no place for tools");
  for (const ChatMessage& message : request.messages) {
    out.control("<|im_start|>" + message.role + "\n");
    out.content(text_of(message));
    out.control("<|im_end|>\n");
  }
  if (request.add_generation_prompt) out.control("<|im_start|>assistant\n");
  return out;
}

}  // namespace sluice
