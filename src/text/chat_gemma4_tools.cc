#include "text/chat_gemma4_tools.h"

#include <array>

#include "text/chat_render.h"

namespace sluice {
namespace {

constexpr std::string_view kQuote = "<|\"|>";

void quoted(std::string_view text, RenderedPrompt& out) {
  out.control(kQuote);
  out.content(text);
  out.control(kQuote);
}

void separator(bool& found_first, RenderedPrompt& out) {
  if (found_first) out.control(",");
  found_first = true;
}

// A value: strings quoted by token, keys bare or quoted.
void argument(const Json* value, bool escape_keys, RenderedPrompt& out) {
  if (value == nullptr) {
    out.control("[]");
  } else if (value->is_string()) {
    quoted(value->get_ref<const std::string&>(), out);
  } else if (value->is_boolean()) {
    out.control(value->get<bool>() ? "true" : "false");
  } else if (value->is_object()) {
    out.control("{");
    bool found_first = false;
    for (const auto& [key, item] : sorted_members(*value)) {
      separator(found_first, out);
      if (escape_keys) {
        quoted(key, out);
      } else {
        out.content(key);
      }
      out.control(":");
      argument(item, escape_keys, out);
    }
    out.control("}");
  } else if (value->is_array()) {
    out.control("[");
    bool found_first = false;
    for (const Json& item : *value) {
      separator(found_first, out);
      argument(&item, escape_keys, out);
    }
    out.control("]");
  } else {
    out.content(python_text(value));
  }
}

// required:[a,b], of a list that holds something.
Status required_list(const Json& list, RenderedPrompt& out) {
  if (!list.is_array()) return invalid_argument("a tool's \"required\" must be a list");
  out.control("required:[");
  bool found_first = false;
  for (const Json& item : list) {
    separator(found_first, out);
    quoted(python_text(&item), out);
  }
  out.control("]");
  return ok_status();
}

Status parameters(const Json& properties, RenderedPrompt& out);

// items:{...} of an array parameter.
Status array_items(const Json& items, RenderedPrompt& out) {
  out.control("items:{");
  bool found_first = false;
  for (const auto& [key, item] : sorted_members(items)) {
    if (item->is_null()) continue;
    separator(found_first, out);
    if (key == "properties") {
      out.control("properties:{");
      if (item->is_object()) SLUICE_RETURN_IF_ERROR(parameters(*item, out));
      out.control("}");
    } else if (key == "required") {
      SLUICE_RETURN_IF_ERROR(required_list(*item, out));
    } else if (key == "type") {
      out.control("type:");
      Json upper = item->is_string() ? Json(upper_case(item->get<std::string>())) : Json::array();
      if (item->is_array())
        for (const Json& type : *item) upper.push_back(upper_case(python_text(&type)));
      argument(&upper, true, out);
    } else {
      out.content(key);
      out.control(":");
      argument(item, true, out);
    }
  }
  out.control("}");
  return ok_status();
}

// One parameter's description: {description:...,type:...}.
Status parameter(const Json* value, RenderedPrompt& out) {
  const std::string type = upper_case(python_text(member(value, "type")));
  bool comma = false;
  out.control("{");
  if (const Json* const description = member(value, "description"); truthy(description)) {
    out.control("description:");
    quoted(python_text(description), out);
    comma = true;
  }
  const Json* const items = member(value, "items");
  if (const Json* const values = member(value, "enum"); type == "STRING" && truthy(values)) {
    separator(comma, out);
    out.control("enum:");
    argument(values, true, out);
  } else if (type == "ARRAY" && truthy(items) && items->is_object()) {
    separator(comma, out);
    SLUICE_RETURN_IF_ERROR(array_items(*items, out));
  }
  if (truthy(member(value, "nullable"))) {
    separator(comma, out);
    out.control("nullable:true");
  }
  if (type == "OBJECT") {
    // Without "properties" the template lists the schema's own unknown keys.
    const Json* const inner = member(value, "properties");
    separator(comma, out);
    out.control("properties:{");
    SLUICE_RETURN_IF_ERROR(
        parameters(inner != nullptr && inner->is_object() ? *inner : *value, out));
    out.control("}");
    if (const Json* const required = member(value, "required"); truthy(required)) {
      separator(comma, out);
      SLUICE_RETURN_IF_ERROR(required_list(*required, out));
    }
  }
  separator(comma, out);
  out.control("type:");
  quoted(type, out);
  out.control("}");
  return ok_status();
}

Status parameters(const Json& properties, RenderedPrompt& out) {
  static constexpr std::array<std::string_view, 5> kSchemaKeys = {
      "description", "type", "properties", "required", "nullable"};
  if (!properties.is_object()) return invalid_argument("a tool's \"properties\" must be an object");
  bool found_first = false;
  for (const auto& [key, value] : sorted_members(properties)) {
    bool skip = false;
    for (const std::string_view known : kSchemaKeys) skip = skip || key == known;
    if (skip) continue;
    separator(found_first, out);
    out.content(key);
    out.control(":");
    SLUICE_RETURN_IF_ERROR(parameter(value, out));
  }
  return ok_status();
}

}  // namespace

Status gemma4_declaration(const Json& tool, RenderedPrompt& out) {
  const Json* const function = member(&tool, "function");
  if (function == nullptr || !function->is_object())
    return invalid_argument("a tool needs a \"function\" object");
  out.control("declaration:");
  out.content(python_text(member(function, "name")));
  out.control("{description:");
  quoted(python_text(member(function, "description")), out);
  if (const Json* const params = member(function, "parameters"); truthy(params)) {
    out.control(",parameters:{");
    if (const Json* const properties = member(params, "properties"); truthy(properties)) {
      out.control("properties:{");
      SLUICE_RETURN_IF_ERROR(parameters(*properties, out));
      out.control("},");
    }
    if (const Json* const required = member(params, "required"); truthy(required)) {
      SLUICE_RETURN_IF_ERROR(required_list(*required, out));
      out.control(",");
    }
    if (const Json* const type = member(params, "type"); truthy(type)) {
      out.control("type:");
      quoted(upper_case(python_text(type)), out);
      out.control("}");  // absent without a type, as in the template
    }
  }
  if (const Json* const response = member(function, "response"); response != nullptr) {
    out.control(",response:{");
    if (const Json* const description = member(response, "description"); truthy(description)) {
      out.control("description:");
      quoted(python_text(description), out);
      out.control(",");
    }
    if (upper_case(python_text(member(response, "type"))) == "OBJECT") {
      out.control("type:");
      quoted("OBJECT", out);
      out.control("}");
    }
  }
  out.control("}");
  return ok_status();
}

void gemma4_call(const ToolCall& call, RenderedPrompt& out) {
  out.control("<|tool_call>call:");
  out.content(call.name);
  out.control("{");
  if (call.arguments.is_object()) {
    bool found_first = false;
    for (const auto& [key, value] : sorted_members(call.arguments)) {
      separator(found_first, out);
      out.content(key);
      out.control(":");
      argument(value, false, out);
    }
  } else if (call.arguments.is_string()) {
    out.content(call.arguments.get_ref<const std::string&>());
  }
  out.control("}<tool_call|>");
}

void gemma4_response(const std::string& name, const Json* response, RenderedPrompt& out) {
  out.control("<|tool_response>response:");
  out.content(name);
  if (response != nullptr && response->is_object()) {
    out.control("{");
    bool found_first = false;
    for (const auto& [key, value] : sorted_members(*response)) {
      separator(found_first, out);
      out.content(key);
      out.control(":");
      argument(value, false, out);
    }
  } else {
    out.control("{value:");
    argument(response, false, out);
  }
  out.control("}<tool_response|>");
}

}  // namespace sluice
