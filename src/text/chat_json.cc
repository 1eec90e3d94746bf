#include "text/chat_json.h"

#include "base/json.h"
#include "text/chat_render.h"

namespace sluice {
namespace {

constexpr JsonLimits kLimits = {.max_depth = 48, .max_values = 1'000'000};

// Builds a value with its keys in order from text that the strict parser has accepted.
// (Json::parse would look for every key among the ones before it: minutes for a big object.)
class OrderedBuilder : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return put(nullptr); }
  bool boolean(bool v) override { return put(v); }
  bool number_integer(number_integer_t v) override { return put(v); }
  bool number_unsigned(number_unsigned_t v) override { return put(v); }
  bool number_float(number_float_t v, const string_t&) override { return put(v); }
  bool string(string_t& v) override { return put(std::move(v)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool key(string_t& k) override {
    key_ = k;
    return true;
  }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_array() override { return close(); }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }
  Json root;

 private:
  Json* place(Json value) {
    if (stack_.empty()) {
      root = std::move(value);
      return &root;
    }
    if (stack_.back()->is_array()) {
      stack_.back()->push_back(std::move(value));
      return &stack_.back()->back();
    }
    auto& members = stack_.back()->get_ref<Json::object_t&>();
    members.emplace_back(key_, std::move(value));
    return &members.back().second;
  }
  template <class V>
  bool put(V&& value) {
    place(Json(std::forward<V>(value)));
    return true;
  }
  bool open(Json value) {
    stack_.push_back(place(std::move(value)));
    return true;
  }
  bool close() {
    stack_.pop_back();
    return true;
  }

  std::vector<Json*> stack_;  // the open containers; only the last one grows
  std::string key_;
};

// An absent or null member leaves `out` alone.
Status read_string(const Json& object, const char* key, std::string_view where,
                   std::optional<std::string>& out) {
  const Json* const value = member(&object, key);
  if (value == nullptr || value->is_null()) return ok_status();
  if (!value->is_string()) return invalid_argument("{}: \"{}\" must be a string", where, key);
  out = value->get<std::string>();
  return ok_status();
}

Status read_bool(const Json& object, const char* key, std::string_view where,
                 std::optional<bool>& out) {
  const Json* const value = member(&object, key);
  if (value == nullptr || value->is_null()) return ok_status();
  if (!value->is_boolean()) return invalid_argument("{}: \"{}\" must be true or false", where, key);
  out = value->get<bool>();
  return ok_status();
}

Status read_tool_call(const Json& value, const std::string& where, ToolCall& out) {
  if (!value.is_object()) return invalid_argument("{}: a tool call must be an object", where);
  SLUICE_RETURN_IF_ERROR(read_string(value, "id", where, out.id));
  const Json* const inner = member(&value, "function");
  const Json& function = truthy(inner) ? *inner : value;
  std::optional<std::string> name, content_type;
  SLUICE_RETURN_IF_ERROR(read_string(function, "name", where, name));
  SLUICE_RETURN_IF_ERROR(read_string(function, "content_type", where, content_type));
  if (!name) return invalid_argument("{}: a tool call needs a \"name\"", where);
  out.name = *name;
  if (content_type) out.content_type = *content_type;
  const Json* const arguments = member(&function, "arguments");
  if (arguments == nullptr) return invalid_argument("{}: a tool call needs \"arguments\"", where);
  out.arguments = *arguments;
  return ok_status();
}

Status read_message(const Json& value, const std::string& where, ChatMessage& out) {
  if (!value.is_object()) return invalid_argument("{}: a message must be an object", where);
  std::optional<std::string> role;
  SLUICE_RETURN_IF_ERROR(read_string(value, "role", where, role));
  if (!role) return invalid_argument("{}: no \"role\"", where);
  out.role = *role;
  if (const Json* const content = member(&value, "content"); content != nullptr)
    out.content = *content;
  for (const char* const key : {"reasoning_content", "thinking", "reasoning"})
    if (!out.reasoning) SLUICE_RETURN_IF_ERROR(read_string(value, key, where, out.reasoning));
  SLUICE_RETURN_IF_ERROR(read_string(value, "tool_call_id", where, out.tool_call_id));
  SLUICE_RETURN_IF_ERROR(read_string(value, "name", where, out.name));
  if (const Json* const responses = member(&value, "tool_responses"); responses != nullptr)
    out.tool_responses = *responses;
  const Json* const calls = member(&value, "tool_calls");
  if (calls == nullptr || calls->is_null()) return ok_status();
  if (!calls->is_array()) return invalid_argument("{}: \"tool_calls\" must be a list", where);
  for (const Json& call : *calls) {
    out.tool_calls.emplace_back();
    SLUICE_RETURN_IF_ERROR(read_tool_call(call, where, out.tool_calls.back()));
  }
  return ok_status();
}

}  // namespace

Result<ChatRequest> chat_request_of(const Json& value, std::string_view where) {
  const Json* const messages = member(&value, "messages");
  if (messages == nullptr || !messages->is_array())
    return invalid_argument("{}: expected an object with a list \"messages\"", where);
  ChatRequest out;
  for (const Json& message : *messages) {
    const std::string place = fmt::format("{}: message {}", where, out.messages.size());
    out.messages.emplace_back();
    SLUICE_RETURN_IF_ERROR(read_message(message, place, out.messages.back()));
  }
  if (const Json* const tools = member(&value, "tools"); tools != nullptr) out.tools = *tools;
  if (!out.tools.is_null() && !out.tools.is_array())
    return invalid_argument("{}: \"tools\" must be a list", where);
  std::optional<bool> generate;
  SLUICE_RETURN_IF_ERROR(read_bool(value, "add_generation_prompt", where, generate));
  out.add_generation_prompt = generate.value_or(true);
  SLUICE_RETURN_IF_ERROR(read_bool(value, "enable_thinking", where, out.enable_thinking));
  SLUICE_RETURN_IF_ERROR(read_string(value, "reasoning_effort", where, out.reasoning_effort));
  SLUICE_RETURN_IF_ERROR(read_string(value, "current_date", where, out.current_date));
  return out;
}

Result<ChatRequest> parse_chat_request(std::string_view text, std::string_view where) {
  // The strict parser judges; it sorts keys, so a second pass keeps their order.
  const auto strict = parse_json(text, where, kLimits);
  if (!strict.ok()) return strict.status();
  OrderedBuilder builder;
  if (!Json::sax_parse(text.begin(), text.end(), &builder))
    return data_loss("{}: not valid JSON", where);
  return chat_request_of(builder.root, where);
}

}  // namespace sluice
