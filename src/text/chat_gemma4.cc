// Gemma 4: <|turn>role turns, thinking in <|channel>, and a notation for tools that needs no JSON:
// bare sorted keys, strings between <|"|> tokens. After the published template of the 31B model.
#include <map>

#include "text/chat_gemma4_tools.h"
#include "text/chat_render.h"

namespace sluice {
namespace {

// Drops what lies between <|channel> and <channel|>; then strips white space.
std::string strip_thinking(std::string_view text) {
  constexpr std::string_view kOpen = "<|channel>";
  constexpr std::string_view kClose = "<channel|>";
  std::string out;
  for (;;) {
    const size_t end = text.find(kClose);
    const std::string_view part = text.substr(0, end);
    out += part.substr(0, part.find(kOpen));
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + kClose.size());
  }
  return std::string(strip_white_space(out));
}

enum class Previous { kNone, kToolCall, kToolResponse, kMedia };

class Renderer {
 public:
  explicit Renderer(const ChatRequest& request)
      : request_(request),
        first_(is_system(request.messages[0]) ? 1 : 0),
        last_user_(request.messages.size()) {}

  Result<RenderedPrompt> render() {
    out_.control("<bos>");
    SLUICE_RETURN_IF_ERROR(system_turn());
    const auto& messages = request_.messages;
    bool after_user = true;  // after the last user message, or there is none
    for (size_t i = first_; i < messages.size(); ++i)
      if (messages[i].role == "user") last_user_ = i;
    for (size_t i = first_; i < messages.size(); ++i) {
      after_user = last_user_ == messages.size() || i > last_user_;
      if (messages[i].role != "tool") SLUICE_RETURN_IF_ERROR(turn(i, after_user));
    }
    if (request_.add_generation_prompt && previous_ != Previous::kToolResponse &&
        previous_ != Previous::kToolCall) {
      out_.control("<|turn>model\n");
      if (!request_.enable_thinking.value_or(false)) out_.control("<|channel>thought\n<channel|>");
    }
    return std::move(out_);
  }

 private:
  static bool is_system(const ChatMessage& m) {
    return m.role == "system" || m.role == "developer";
  }

  Status system_turn() {
    const bool thinking = request_.enable_thinking.value_or(false);
    if (!thinking && !has_tools(request_) && first_ == 0) return ok_status();
    out_.control("<|turn>system\n");
    if (thinking) out_.control("<|think|>\n");
    if (first_ == 1) out_.content(strip_white_space(text_of(request_.messages[0])));
    if (has_tools(request_)) {
      for (const Json& tool : request_.tools) {
        out_.control("<|tool>");
        SLUICE_RETURN_IF_ERROR(gemma4_declaration(tool, out_));
        out_.control("<tool|>");
      }
    }
    out_.control("<turn|>\n");
    return ok_status();
  }

  // An assistant message goes on with the turn of the one before, tool results between them or not.
  bool continues_model_turn(size_t index) const {
    if (request_.messages[index].role != "assistant") return false;
    for (size_t i = index; i-- > first_;)
      if (request_.messages[i].role != "tool") return request_.messages[i].role == "assistant";
    return false;
  }

  Status turn(size_t index, bool after_user) {
    const ChatMessage& message = request_.messages[index];
    previous_ = Previous::kNone;
    const bool model = message.role == "assistant";
    if (!continues_model_turn(index))
      out_.control("<|turn>" + (model ? std::string("model") : message.role) + "\n");
    if (message.reasoning && !message.reasoning->empty() && after_user &&
        !message.tool_calls.empty()) {
      out_.control("<|channel>thought\n");
      out_.content(*message.reasoning);
      out_.control("\n<channel|>");
    }
    for (const ToolCall& call : message.tool_calls) gemma4_call(call, out_);
    if (!message.tool_calls.empty()) previous_ = Previous::kToolCall;
    bool responded = false;
    SLUICE_RETURN_IF_ERROR(responses(index, responded));
    content(message, model);
    if (previous_ == Previous::kToolCall && !responded) {
      out_.control("<|tool_response>");
    } else if (!(responded && !truthy(&message.content))) {
      out_.control("<turn|>\n");
    }
    return ok_status();
  }

  Status responses(size_t index, bool& responded) {
    const ChatMessage& message = request_.messages[index];
    if (truthy(&message.tool_responses)) {
      if (!message.tool_responses.is_array())
        return invalid_argument("message {}: tool_responses must be a list", index);
      for (const Json& item : message.tool_responses) {
        const Json* const name = member(&item, "name");
        gemma4_response(name == nullptr ? "unknown" : python_text(name), member(&item, "response"),
                        out_);
        responded = true;
      }
    } else if (!message.tool_calls.empty()) {
      const auto& messages = request_.messages;
      std::map<std::optional<std::string>, std::string>
          name_of;  // of the calls; the last one counts
      for (const ToolCall& call : message.tool_calls) name_of[call.id] = call.name;
      for (size_t i = index + 1; i < messages.size() && messages[i].role == "tool"; ++i) {
        std::optional<std::string> name = messages[i].name;
        if (const auto call = name_of.find(messages[i].tool_call_id); call != name_of.end())
          name = call->second;
        if (!name)
          return invalid_argument(
              "message {}: a tool result that names no tool, and whose "
              "tool_call_id is none of message {}'s",
              i, index);
        const Json text = text_of(messages[i]);
        gemma4_response(*name, &text, out_);
        responded = true;
      }
    }
    if (responded) previous_ = Previous::kToolResponse;
    return ok_status();
  }

  void content(const ChatMessage& message, bool model) {
    const auto text = [&](const std::string& s) {
      if (model) {
        out_.content(strip_thinking(s));
      } else {
        out_.content(strip_white_space(s));
      }
    };
    if (message.content.is_string()) text(message.content.get_ref<const std::string&>());
    if (!message.content.is_array()) return;
    for (const Json& part : message.content) {
      const std::string& type = member(&part, "type")->get_ref<const std::string&>();
      if (type == "text") {
        text(member(&part, "text")->get_ref<const std::string&>());
      } else if (type == "image" || type == "audio" || type == "video") {
        out_.control("<|" + type + "|>");
        previous_ = Previous::kMedia;
      }
    }
  }

  const ChatRequest& request_;
  size_t first_;      // the first message of the loop: a system message is rendered before it
  size_t last_user_;  // messages.size() if there is none
  Previous previous_ = Previous::kNone;
  RenderedPrompt out_;
};

}  // namespace

Result<RenderedPrompt> render_gemma4(const ChatRequest& request) {
  return Renderer(request).render();
}

}  // namespace sluice
