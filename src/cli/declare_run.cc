// Declarations of the commands that write text: run and chat.
#include <iostream>

#include "cli/chat.h"
#include "cli/cli.h"
#include "cli/run.h"

namespace sluice {
namespace {

constexpr const char* kRunFooter =
    R"(The text goes to standard output; sampling, speeds, peak memory and the expert picture go to
standard error. Sampling defaults come from the model's generation_config.json, else temperature 1.
The same prompt, flags and seed give the same text, whatever else runs beside it.
--profile hf rounds inside expert layers where transformers' bf16 operators do (aiter, max, tpu, mojo
and sglang: those projects), to compare with them; Gemma 4's router follows hf and max, too. The
default is nearer to exact arithmetic.

Examples:
  sluice run models/three-voices -p "In the beginning" -n 60 --experts
  sluice run MODEL -p "Why is the sky blue?" --chat --temp 0
  sluice run MODEL -p "One." -p "Two." --json       # one batch, one JSON line)";

constexpr const char* kChatFooter =
    R"(In the conversation: /help, /reset, /exit; Ctrl-C stops an answer, Ctrl-D ends.

Examples:
  sluice chat models/three-voices
  echo "Hello" | sluice chat MODEL --temp 0 --json)";

void add_model_options(CLI::App& sub, LoadRequest& load) {
  add_option(sub, "model", load.model, "Model directory, or a packed store")->required();
  add_load_options(sub, load);
}

void add_sampling_options(CLI::App& sub, SamplingFlags& f) {
  add_option(sub, "--temp,--temperature", f.temperature,
             "Temperature; 0 takes the likeliest token");
  add_option(sub, "--top-k", f.top_k, "Keep the K likeliest tokens; 0 or -1: all");
  add_option(sub, "--top-p", f.top_p, "Keep the likeliest tokens of this total probability");
  add_option(sub, "--min-p", f.min_p, "Drop tokens below this part of the likeliest one");
  add_option(sub, "--repetition-penalty", f.repetition_penalty, "Over prompt and answer; 1: off");
  add_option(sub, "--presence-penalty", f.presence_penalty, "Once for every token used; 0: off");
  add_option(sub, "--frequency-penalty", f.frequency_penalty, "For every use of a token; 0: off");
  add_option(sub, "--seed", f.seed, "Seed of the draws")->capture_default_str();
}

// --think / --no-think, unset by default.
CLI::Option* add_think(CLI::App& sub, std::optional<bool>& think) {
  return sub
      .add_flag_function(
          "--think,!--no-think", [&think](int64_t n) { think = n > 0; },
          "Reason before the answer, or not (default: as the format has it)")
      ->envname(environment_name("--think"));
}

}  // namespace

Command declare_run(CLI::App& app) {
  auto o = std::make_shared<RunOptions>();
  CLI::App* sub = app.add_subcommand("run", "Continue prompts, or answer them");
  add_model_options(*sub, o->load);
  add_option(*sub, "-p,--prompt", o->prompts, "Prompt; repeated: several, computed as one batch")
      ->required()
      ->allow_extra_args(false);
  add_option(*sub, "-n,--tokens", o->tokens, "New tokens at most, per prompt")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30))
      ->capture_default_str();
  add_option(*sub, "--context", o->context, "Tokens of prompt and answer (default: the model's)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30));
  add_sampling_options(*sub, o->sampling);
  CLI::Option* chat =
      add_flag(*sub, "--chat", o->chat, "Wrap the prompt in the model's chat format");
  add_option(*sub, "--system", o->system, "System message")->needs(chat);
  add_think(*sub, o->think)->needs(chat);
  add_flag(*sub, "--ignore-eos", o->ignore_eos, "Go on after end-of-sequence tokens");
  add_option(*sub, "--stop", o->stops, "End the answer at this text; may be repeated")
      ->allow_extra_args(false);
  add_flag(*sub, "--experts", o->experts, "Draw the load of every layer's experts");
  add_flag(*sub, "--json", o->json, "One JSON line instead of text");
  sub->footer(kRunFooter);
  return {sub, [o](Console& console) { return run_run(*o, console); }, &o->json};
}

Command declare_chat(CLI::App& app) {
  auto o = std::make_shared<ChatOptions>();
  CLI::App* sub = app.add_subcommand("chat", "A conversation in the terminal");
  add_model_options(*sub, o->load);
  add_option(*sub, "-n,--tokens", o->tokens, "New tokens at most, per answer")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30))
      ->capture_default_str();
  add_option(*sub, "--context", o->context, "Tokens of the conversation (default: the model's)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30));
  add_sampling_options(*sub, o->sampling);
  add_option(*sub, "--system", o->system, "System message");
  add_think(*sub, o->think);
  add_flag(*sub, "--json", o->json, "One JSON line per answer");
  sub->footer(kChatFooter);
  return {sub, [o](Console& console) { return run_chat(*o, std::cin, console); }, &o->json};
}

}  // namespace sluice
