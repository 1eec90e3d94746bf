#include "text/parse_calls.h"

#include <charconv>

#include "base/json.h"
#include "text/chat_render.h"

namespace sluice {
namespace {

constexpr std::string_view kQuote = "<|\"|>";
constexpr int kDeepest = 32;

std::string dumped(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Gemma 4's values: <|"|>text<|"|>, numbers, true, false, null, [a,b] and {key:value}.
class GemmaValues {
 public:
  explicit GemmaValues(std::string_view text) : text_(text) {}
  bool object(Json& out, int depth) {
    out = Json::object();
    if (depth > kDeepest || !take("{")) return false;
    if (take("}")) return true;
    do {
      std::string key;
      Json value;
      if (!this->key(key) || !this->value(value, depth + 1)) return false;
      out[key] = std::move(value);
    } while (take(","));
    return take("}");
  }
  bool at_end() const { return text_.empty(); }

 private:
  bool take(std::string_view what) {
    if (!text_.starts_with(what)) return false;
    text_.remove_prefix(what.size());
    return true;
  }
  bool quoted(std::string& out) {
    const size_t end = text_.find(kQuote);
    if (end == std::string_view::npos) return false;
    out = text_.substr(0, end);
    text_.remove_prefix(end + kQuote.size());
    return true;
  }
  bool key(std::string& out) {
    if (take(kQuote)) return quoted(out) && take(":");
    const size_t end = text_.find(':');
    if (end == std::string_view::npos || end == 0) return false;
    out = strip_call(text_.substr(0, end));
    text_.remove_prefix(end + 1);
    return !out.empty();
  }
  bool value(Json& out, int depth) {
    if (take(kQuote)) {
      std::string text;
      if (!quoted(text)) return false;
      out = std::move(text);
      return true;
    }
    if (text_.starts_with("{")) return object(out, depth);
    if (take("[")) return list(out, depth);
    return plain(out);
  }
  bool list(Json& out, int depth) {
    out = Json::array();
    if (depth > kDeepest) return false;
    if (take("]")) return true;
    do {
      Json item;
      if (!value(item, depth + 1)) return false;
      out.push_back(std::move(item));
    } while (take(","));
    return take("]");
  }
  bool plain(Json& out) {
    const std::string_view word = strip_call(text_.substr(0, text_.find_first_of(",}]")));
    if (word.empty()) return false;
    text_.remove_prefix(std::min(text_.find_first_of(",}]"), text_.size()));
    if (word == "true" || word == "false") {
      out = word == "true";
    } else if (word == "null" || word == "None") {
      out = nullptr;
    } else {
      Json number = Json::parse(word, nullptr, false);
      // A word without its quotes is kept as a string.
      out = number.is_number() ? std::move(number) : Json(std::string(word));
    }
    return true;
  }

  std::string_view text_;
};

}  // namespace

std::string_view strip_call(std::string_view text) {
  return strip_white_space(text);
}

bool read_json_call(std::string_view text, std::string& name, std::string& arguments) {
  text = strip_white_space(text);
  const JsonLimits limits = {.max_depth = 48, .max_values = 100'000, .reject_duplicate_keys = true};
  if (!parse_json(text, "tool call", limits).ok()) return false;
  const Json value = Json::parse(text, nullptr, false);
  const Json* const called = member(&value, "name");
  if (called == nullptr || !called->is_string()) return false;
  name = called->get<std::string>();
  const Json* const given = member(&value, "arguments");
  if (given == nullptr || given->is_null()) {
    arguments = "{}";
  } else {
    arguments = given->is_string() ? given->get<std::string>() : dumped(*given);
  }
  return true;
}

bool read_gemma4_call(std::string_view text, std::string& name, std::string& arguments) {
  constexpr std::string_view kCall = "call:";
  text = strip_white_space(text);
  const size_t brace = text.find('{');
  if (!text.starts_with(kCall) || brace == std::string_view::npos || brace == kCall.size())
    return false;
  GemmaValues values(text.substr(brace));
  Json object;
  if (!values.object(object, 0) || !values.at_end()) return false;
  name = text.substr(kCall.size(), brace - kCall.size());
  arguments = dumped(object);
  return true;
}

HarmonyHeader read_harmony_header(std::string_view header) {
  HarmonyHeader out;
  constexpr std::string_view kChannel = "<|channel|>";
  constexpr std::string_view kConstrain = "<|constrain|>";
  const size_t channel = header.find(kChannel);
  if (channel != std::string_view::npos) {
    std::string_view rest = header.substr(channel + kChannel.size());
    rest = rest.substr(0, rest.find(kConstrain));
    out.channel = rest.substr(0, rest.find_first_of(" <"));
  }
  constexpr std::string_view kTo = " to=";
  if (const size_t to = header.find(kTo); to != std::string_view::npos) {
    std::string_view name = header.substr(to + kTo.size());
    name = name.substr(0, name.find_first_of(" <\n"));
    if (name.starts_with("functions.")) name.remove_prefix(10);
    out.recipient = name;
  }
  return out;
}

}  // namespace sluice
