#include "text/chat_harmony_tools.h"

#include <unordered_set>

#include "text/chat_render.h"
#include "tokenizer/unicode.h"

namespace sluice {
namespace {

void type_of(const Json* spec, RenderedPrompt& out);

// The template's line breaks inside one-of and object types, kept with their indentation.
constexpr std::string_view kDefaultIndent = "                    ";
constexpr std::string_view kPropertyIndent = "\n                ";

size_t code_points(std::string_view text) {
  size_t n = 0;
  for (const char c : text) n += (static_cast<uint8_t>(c) & 0xC0) != 0x80;
  return n;
}

void array_type(const Json* spec, RenderedPrompt& out) {
  const Json* const items = member(spec, "items");
  const Json* const inner = member(items, "type");
  if (!truthy(items) && items != nullptr) {
    out.control("any[]");
  } else if (is_string(inner, "string") || is_string(inner, "boolean")) {
    out.control(inner->get<std::string>() + "[]");
  } else if (is_string(inner, "number") || is_string(inner, "integer")) {
    out.control("number[]");
  } else {
    RenderedPrompt type;
    type_of(items, type);
    const std::string text = type.to_string();
    if (text == "object | object" || code_points(text) > 50) {
      out.control("any[]");
    } else {
      out.append(type);
      out.control("[]");
    }
  }
  if (truthy(member(spec, "nullable"))) out.control(" | null");
}

void one_of_type(const Json& variants, RenderedPrompt& out) {
  // The template means to print "any" where a variant is an object, but a variable that Jinja sets
  // inside a loop is lost after it: published models saw the variants.
  size_t left = variants.size();
  for (const Json& variant : variants) {
    type_of(&variant, out);
    if (const Json* const description = member(&variant, "description"); truthy(description)) {
      out.control("// ");
      out.content(python_text(description));
    }
    if (const Json* const value = member(&variant, "default"); value != nullptr) {
      out.control(kDefaultIndent);
      out.control("// default: ");
      out.content(python_json(*value));
    }
    if (--left > 0) out.control(" | \n");
  }
}

void object_type(const Json* spec, RenderedPrompt& out);

void string_type(const Json* spec, RenderedPrompt& out) {
  const Json* const values = member(spec, "enum");
  if (!truthy(values)) {
    out.control("string");
    if (truthy(member(spec, "nullable"))) out.control(" | null");
    return;
  }
  std::string_view before = "\"";
  for (const Json& value : *values) {
    out.control(before);
    out.content(python_text(&value));
    before = "\" | \"";
  }
  out.control("\"");
}

void type_of(const Json* spec, RenderedPrompt& out) {
  const Json* const type = member(spec, "type");
  if (is_string(type, "array")) {
    array_type(spec, out);
  } else if (type != nullptr && type->is_array() && !type->empty()) {
    std::string_view before;
    for (const Json& one : *type) {
      out.control(before);
      out.content(python_text(&one));
      before = " | ";
    }
  } else if (const Json* const one_of = member(spec, "oneOf");
             truthy(one_of) && one_of->is_array()) {
    one_of_type(*one_of, out);
  } else if (is_string(type, "string")) {
    string_type(spec, out);
  } else if (is_string(type, "number") || is_string(type, "integer")) {
    out.control("number");
  } else if (is_string(type, "boolean")) {
    out.control("boolean");
  } else if (is_string(type, "object")) {
    object_type(spec, out);
  } else {
    out.control("any");
  }
}

std::unordered_set<std::string> names_in(const Json* list) {
  std::unordered_set<std::string> out;
  if (list == nullptr || !list->is_array()) return out;
  for (const Json& item : *list)
    if (item.is_string()) out.insert(item.get<std::string>());
  return out;
}

void object_type(const Json* spec, RenderedPrompt& out) {
  const Json* const properties = member(spec, "properties");
  if (!truthy(properties) || !properties->is_object()) {
    out.control("object");
    return;
  }
  out.control("{\n");
  const auto required = names_in(member(spec, "required"));
  size_t left = properties->size();
  for (auto it = properties->begin(); it != properties->end(); ++it) {
    out.content(it.key());
    if (required.count(it.key()) == 0) out.control("?");
    out.control(": ");
    out.control(kPropertyIndent);
    type_of(&*it, out);
    if (--left > 0) out.control(", ");
  }
  out.control("}");
}

Status parameter(const std::string& name, const Json& spec, bool required, RenderedPrompt& out) {
  if (const Json* const description = member(&spec, "description"); truthy(description)) {
    out.control("// ");
    out.content(python_text(description));
    out.control("\n");
  }
  out.content(name);
  if (!required) out.control("?");
  out.control(": ");
  type_of(&spec, out);
  if (const Json* const value = member(&spec, "default"); value != nullptr) {
    const bool has_enum = truthy(member(&spec, "enum"));
    const bool as_text = has_enum || truthy(member(&spec, "oneOf"));
    if (as_text && !value->is_string())
      return invalid_argument("parameter \"{}\": the default of an enum or oneOf must be a string",
                              name);
    out.control(as_text && !has_enum ? "// default: " : ", // default: ");
    out.content(as_text ? value->get<std::string>() : python_json(*value));
  }
  out.control(",\n");
  return ok_status();
}

}  // namespace

Status harmony_namespace(const Json& tools, RenderedPrompt& out) {
  out.control("## functions\n\nnamespace functions {\n\n");
  for (const Json& tool : tools) {
    const Json* const function = member(&tool, "function");
    const Json* const name = member(function, "name");
    if (name == nullptr || !name->is_string())
      return invalid_argument("a tool needs a \"function\" with a \"name\"");
    if (const Json* const description = member(function, "description");
        description != nullptr && description->is_string()) {
      out.control("// ");
      out.content(description->get<std::string>());
      out.control("\n");
    }
    out.control("type ");
    out.content(name->get<std::string>());
    out.control(" = ");
    const Json* const parameters = member(function, "parameters");
    const Json* const properties = member(parameters, "properties");
    if (!truthy(properties)) {
      out.control("() => any;\n\n");
      continue;
    }
    if (!properties->is_object())
      return invalid_argument("tool \"{}\": \"properties\" must be an object",
                              name->get<std::string>());
    out.control("(_: {\n");
    const auto required = names_in(member(parameters, "required"));
    for (auto it = properties->begin(); it != properties->end(); ++it)
      SLUICE_RETURN_IF_ERROR(parameter(it.key(), *it, required.count(it.key()) != 0, out));
    out.control("}) => any;\n\n");
  }
  out.control("} // namespace functions");
  return ok_status();
}

}  // namespace sluice
