#include "cli/cli.h"
#include "cli/score.h"

namespace sluice {
namespace {

constexpr const char* kFooter = R"(Files:
  --ids FILE.json   [1, 2, 3]            one sequence
                    [[1, 2, 3], [4, 5]]  several, computed as one ragged batch
  --out FILE        logits [T,V] f32: the distribution after each token
    with --trace    hidden.N [T,D] f32: 0 after the embedding, N after layer N
                    router.N.ids [T,K] i32, router.N.weights [T,K] f32: of layer N
    with --greedy   greedy [N] i32: the greedy continuation, end-of-sequence ids included
    several lists   each name begins with seq.I. (seq.0.logits, seq.1.hidden.2 ...)
    with --text     ids [T] i32, nats [T] f32; logits too where the text fits one window
  --text FILE       bits per byte: windows of the model's context, each half over the one before,
                    each beginning with the tokenizer's bos (else eos) token if it has one

Results do not depend, bit for bit, on --chunk, --threads, the other sequences or SLUICE_ISA; nor do
those of any --profile, which rounds inside expert layers where that implementation does.

Examples:
  sluice score MODEL --ids prompt.json --out logits.safetensors --compute f32 --trace
  sluice score MODEL --text book.txt --json)";

}  // namespace

Command declare_score(CLI::App& app) {
  auto o = std::make_shared<ScoreOptions>();
  CLI::App* sub = app.add_subcommand("score", "Logits of given tokens, or bits per byte of a text");
  add_option(*sub, "model", o->load.model, "Model directory, or a packed store")->required();
  CLI::Option_group* input = sub->add_option_group("input");
  CLI::Option* ids = add_option(*input, "--ids", o->ids, "JSON file of token ids");
  add_option(*input, "--text", o->text, "Text file");
  input->require_option(1);
  CLI::Option* out = add_option(*sub, "--out", o->out, "Where to write the tensors (.safetensors)");
  ids->needs(out);
  add_load_options(*sub, o->load);
  add_option(*sub, "--chunk", o->chunk,
             "Tokens of a sequence in one step (default: as many as fit)")
      ->check(CLI::Range(1, 1 << 20));
  add_flag(*sub, "--trace", o->trace, "Hidden states and router choices too")->needs(ids);
  add_option(*sub, "--greedy", o->greedy, "Continue each sequence by N tokens, greedily")
      ->needs(ids)
      ->check(CLI::Range(0, 1 << 20));
  add_flag(*sub, "--json", o->json, "End standard output with one JSON line: steps, rows, workers");
  sub->footer(kFooter);
  return {sub, [o](Console& console) { return run_score(*o, console); }, &o->json};
}

}  // namespace sluice
