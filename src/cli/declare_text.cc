// Declarations of the commands that need no weights: tokenize, template.
#include "cli/cli.h"
#include "cli/template.h"
#include "cli/tokenize.h"

namespace sluice {
namespace {

constexpr const char* kTokenizeFooter =
    R"(Each line of FILE is a JSON object; each line of output is one too:
  {"text": "Hello"}  ->  {"ids": [9707]}
  with --decode: {"ids": [9707]}  ->  {"text": "Hello"}
Nothing is added to a text (no bos); control tokens written in it are recognised.

Examples:
  sluice tokenize MODEL --jsonl texts.jsonl > ids.jsonl
  sluice tokenize tokenizer.json --jsonl ids.jsonl --decode)";

constexpr const char* kTemplateFooter = R"(FILE is a JSON object:
  {"messages": [{"role": "user", "content": "Hello"}], "tools": [...],
   "add_generation_prompt": true, "enable_thinking": false, "reasoning_effort": "low",
   "current_date": "2026-01-31"}
The model's family decides the format; neither weights nor tokenizer are needed.

Example:
  sluice template MODEL --messages conversation.json)";

}  // namespace

Command declare_template(CLI::App& app) {
  auto o = std::make_shared<TemplateOptions>();
  CLI::App* sub = app.add_subcommand("template", "A conversation as the prompt of a model");
  add_option(*sub, "model", o->model, "Model directory")->required();
  add_option(*sub, "--messages", o->messages, "Conversation, a JSON file")->required();
  auto json = std::make_shared<bool>(false);
  add_flag(*sub, "--json", *json, "Errors as a JSON line too");
  sub->footer(kTemplateFooter);
  return {sub, [o, json](Console& console) { return run_template(*o, console.out); }, json.get()};
}

Command declare_tokenize(CLI::App& app) {
  auto o = std::make_shared<TokenizeOptions>();
  CLI::App* sub = app.add_subcommand("tokenize", "Lines of text to token ids, and back");
  add_option(*sub, "model", o->model, "Model directory or tokenizer.json")->required();
  add_option(*sub, "--jsonl", o->jsonl, "Input, one JSON object per line")->required();
  add_flag(*sub, "--decode", o->decode, "From ids to text");
  // The output is JSON in any case; the flag is there so that scripts can always pass it.
  auto json = std::make_shared<bool>(false);
  add_flag(*sub, "--json", *json, "Errors as a JSON line too");
  sub->footer(kTokenizeFooter);
  return {sub, [o, json](Console& console) { return run_tokenize(*o, console.out); }, json.get()};
}

}  // namespace sluice
