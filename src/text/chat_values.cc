// JSON values and text as Jinja2 templates see them.
#include <algorithm>

#include "text/chat_render.h"
#include "tokenizer/unicode.h"

namespace sluice {
namespace {

// repr() of a float: the shortest digits, always with a point or an exponent.
std::string python_float(double value) {
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

// repr() of a string. (Characters that Unicode calls unprintable are not escaped; no template
// prints such a thing.)
std::string python_repr(const std::string& text) {
  const bool has_single = text.find('\'') != std::string::npos;
  const char quote = has_single && text.find('"') == std::string::npos ? '"' : '\'';
  std::string out(1, quote);
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if (c == quote || c == '\\') {
      out += {'\\', c};
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (byte < 0x20 || byte == 0x7F) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  return out + quote;
}

std::string json_string(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// str() of a value, or json.dumps: they differ in quotes and in the names of constants.
std::string spelled(const Json& value, bool json, int depth) {
  if (depth > 100) return "...";  // parsed JSON is never that deep
  switch (value.type()) {
    case Json::value_t::null:
      return json ? "null" : "None";
    case Json::value_t::boolean:
      if (json) return value.get<bool>() ? "true" : "false";
      return value.get<bool>() ? "True" : "False";
    case Json::value_t::string: {
      const auto& text = value.get_ref<const std::string&>();
      return json ? json_string(text) : python_repr(text);
    }
    case Json::value_t::number_float:
      return python_float(value.get<double>());
    case Json::value_t::number_unsigned:
      return fmt::format("{}", value.get<uint64_t>());
    case Json::value_t::number_integer:
      return fmt::format("{}", value.get<int64_t>());
    default:
      break;
  }
  std::string out(1, value.is_object() ? '{' : '[');
  std::string_view separator;
  for (auto it = value.begin(); it != value.end(); ++it) {
    out += separator;
    separator = ", ";
    if (value.is_object()) {
      out += json ? json_string(it.key()) : python_repr(it.key());
      out += ": ";
    }
    out += spelled(*it, json, depth + 1);
  }
  return out += value.is_object() ? '}' : ']';
}

bool is_python_space(uint32_t c) {
  return (c >= 0x1C && c <= 0x1F) || (char_class(c) & kSpace) != 0;
}

}  // namespace

std::string text_of(const ChatMessage& message) {
  if (message.content.is_string()) return message.content.get<std::string>();
  std::string out;
  if (!message.content.is_array()) return out;
  for (const Json& part : message.content)
    if (is_string(member(&part, "type"), "text"))
      out += member(&part, "text")->get_ref<const std::string&>();
  return out;
}

bool has_tools(const ChatRequest& request) {
  return request.tools.is_array() && !request.tools.empty();
}

const Json* member(const Json* value, const char* key) {
  if (value == nullptr || !value->is_object()) return nullptr;
  const auto it = value->find(key);
  return it == value->end() ? nullptr : &*it;
}

bool truthy(const Json* value) {
  if (value == nullptr || value->is_null()) return false;
  if (value->is_boolean()) return value->get<bool>();
  if (value->is_number()) return value->get<double>() != 0;
  if (value->is_string()) return !value->get_ref<const std::string&>().empty();
  return !value->empty();
}

bool is_string(const Json* value, std::string_view text) {
  return value != nullptr && value->is_string() && value->get_ref<const std::string&>() == text;
}

std::string python_text(const Json* value) {
  if (value == nullptr) return {};
  return value->is_string() ? value->get<std::string>() : spelled(*value, false, 0);
}

std::string python_json(const Json& value) {
  return spelled(value, true, 0);
}

std::string upper_case(std::string text) {
  for (char& c : text)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  return text;
}

std::vector<std::pair<std::string, const Json*>> sorted_members(const Json& object) {
  std::vector<std::pair<std::string, const Json*>> out;
  std::vector<std::pair<std::string, size_t>> order;
  for (auto it = object.begin(); it != object.end(); ++it) {
    order.emplace_back(lower_case(make_valid_utf8(it.key())), out.size());
    out.emplace_back(it.key(), &*it);
  }
  std::sort(order.begin(), order.end());
  std::vector<std::pair<std::string, const Json*>> sorted;
  for (const auto& [key, at] : order) sorted.push_back(out[at]);
  return sorted;
}

std::string_view strip_white_space(std::string_view text) {
  size_t first = text.size();
  size_t last = 0;
  for (size_t i = 0; i < text.size();) {
    // Ill-formed bytes are not white space; they end up as U+FFFD in the tokenizer.
    const Utf8Step step = utf8_step(text.substr(i));
    const bool space =
        step.kind == Utf8Step::kComplete && is_python_space(code_point_at(text, i).value);
    if (!space) {
      first = std::min(first, i);
      last = i + step.bytes;
    }
    i += step.bytes;
  }
  return last == 0 ? std::string_view() : text.substr(first, last - first);
}

std::string_view strip_newlines(std::string_view text, bool left, bool right) {
  while (left && !text.empty() && text.front() == '\n') text.remove_prefix(1);
  while (right && !text.empty() && text.back() == '\n') text.remove_suffix(1);
  return text;
}

}  // namespace sluice
