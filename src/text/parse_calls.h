// Tool calls and message headers as models write them: private to this room.
#pragma once

#include <string>
#include <string_view>

namespace sluice {

// White space off both ends.
std::string_view strip_call(std::string_view text);

// {"name": ..., "arguments": {...}}. False if `text` is anything else.
bool read_json_call(std::string_view text, std::string& name, std::string& arguments);

// call:NAME{key:value,...} in Gemma 4's notation, `arguments` as JSON.
bool read_gemma4_call(std::string_view text, std::string& name, std::string& arguments);

// The part between <|start|> and <|message|>: the recipient may stand with the role or with the
// channel, and a content type may follow.
struct HarmonyHeader {
  std::string channel;
  std::string recipient;  // without "functions."; empty if there is none
};
HarmonyHeader read_harmony_header(std::string_view header);

}  // namespace sluice
