#include "cli/cli.h"
#include "cli/inspect.h"
#include "cli/synth.h"

namespace sluice {

Command declare_inspect(CLI::App& app) {
  auto o = std::make_shared<InspectOptions>();
  CLI::App* sub = app.add_subcommand("inspect", "What a model holds, what it costs, if it loads");
  add_option(*sub, "model", o->model, "Directory of a model, or a packed store")->required();
  add_option(*sub, "--compute", o->compute, "Compute mode: bf16 or f32")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
  add_mode(*sub, o->mode, o->arith, "--compute and --mode");
  add_option(*sub, "--tokens", o->tokens, "Tokens of context to foretell memory for")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30))
      ->capture_default_str();
  add_threads(*sub, o->threads);
  add_flag(*sub, "--json", o->json, "One JSON object");
  sub->footer(R"(Every problem is listed, and the exit code is 1 if the model would not load.

Examples:
  sluice inspect models/three-voices
  sluice inspect MODEL --compute f32 --tokens 4096 --json)");
  return {sub, [o](Console& console) { return run_inspect(*o, console); }, &o->json};
}

Command declare_synth(CLI::App& app) {
  auto o = std::make_shared<SynthOptions>();
  CLI::App* sub = app.add_subcommand("synth", "Write a checkpoint of random weights, real shape");
  add_option(*sub, "--family", o->family, "One of " + synth_families())->required();
  add_option(*sub, "--out", o->out, "Directory to write, made if absent")->required();
  add_option(*sub, "--layers", o->layers, "Layers to write")
      ->check(CLI::Range(int64_t{1}, int64_t{1000}))
      ->capture_default_str();
  add_option(*sub, "--seed", o->seed, "The same seed gives the same bytes")->capture_default_str();
  add_threads(*sub, o->threads);
  add_flag(*sub, "--tiny", o->tiny, "Small widths and vocabulary, for tests");
  add_flag(*sub, "--json", o->json, "One JSON object");
  sub->footer(R"(Names, shapes and dtypes are those of the published checkpoint; only the number of
layers and the values differ. There is no tokenizer: use `sluice score --ids`.

Examples:
  sluice synth --family gpt-oss-20b --layers 4 --out gpt-oss-slice
  sluice synth --family qwen3-30b-a3b --tiny --out tiny-qwen --seed 7)");
  return {sub, [o](Console& console) { return run_synth(*o, console); }, &o->json};
}

}  // namespace sluice
