#include "cli/tokenize.h"

#include <nlohmann/json.hpp>
#include <vector>

#include "base/json.h"
#include "tokenizer/tokenizer.h"

namespace sluice {
namespace {

using nlohmann::json;

constexpr size_t kMaxInputBytes = size_t{2} << 30;

Status encode_line(const Tokenizer& tokenizer, const json& line, std::string_view where,
                   std::string& out) {
  const auto text = line.find("text");
  if (text == line.end() || !text->is_string())
    return invalid_argument("{}: expected {{\"text\": string}}", where);
  const auto ids = tokenizer.encode(text->get_ref<const std::string&>(), false);
  out = fmt::format("{{\"ids\":[{}]}}\n", fmt::join(ids, ","));
  return ok_status();
}

Status decode_line(const Tokenizer& tokenizer, const json& line, std::string_view where,
                   std::string& out) {
  const auto list = line.find("ids");
  if (list == line.end() || !list->is_array())
    return invalid_argument("{}: expected {{\"ids\": [whole numbers]}}", where);
  std::vector<int32_t> ids;
  for (const json& id : *list) {
    if (!id.is_number_integer())
      return invalid_argument("{}: \"ids\" holds {}, not a whole number", where, id.dump());
    const bool fits =
        id.is_number_unsigned() ? id.get<uint64_t>() <= INT32_MAX : id.get<int64_t>() >= 0;
    ids.push_back(fits ? id.get<int32_t>() : -1);  // out of range: decodes to nothing
  }
  json object;
  object["text"] = tokenizer.decode(ids, false);
  out = object.dump(-1, ' ', true, json::error_handler_t::replace) + "\n";
  return ok_status();
}

}  // namespace

Status run_tokenize(const TokenizeOptions& options, std::ostream& out) {
  SLUICE_ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::load(options.model));
  SLUICE_ASSIGN_OR_RETURN(const std::string input, read_text_file(options.jsonl, kMaxInputBytes));
  std::string line_out;
  size_t number = 0;
  for (size_t at = 0; at < input.size();) {
    const size_t end = std::min(input.find('\n', at), input.size());
    const std::string_view line = std::string_view(input).substr(at, end - at);
    at = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = fmt::format("{}, line {}", options.jsonl, number);
    SLUICE_ASSIGN_OR_RETURN(const json object, parse_json(line, where));
    if (!object.is_object()) return invalid_argument("{}: expected a JSON object", where);
    SLUICE_RETURN_IF_ERROR(options.decode ? decode_line(tokenizer, object, where, line_out)
                                          : encode_line(tokenizer, object, where, line_out));
    out << line_out;
    if (!out) return io_error("writing the output failed");
  }
  return ok_status();
}

}  // namespace sluice
