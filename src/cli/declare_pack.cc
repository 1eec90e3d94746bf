#include "cli/cli.h"
#include "cli/pack.h"

namespace sluice {
namespace {

constexpr const char* kFooter =
    R"(A store stands wherever a model does: run, chat, score, inspect. It holds the weights in the panels
that the kernels stream and starts in the time of a page-in. An interrupted pack goes on where it
stopped; a store appears whole or not at all.

Formats:
  bf16, f32   as the model would be loaded for that compute mode: the same results, bit for bit
  int8        8.06 bits per weight, int4 4.19: integers with one scale per output and --group k
  q8_0, q4_0  8.5 and 4.5 bits: GGUF's formats, chosen by ggml's rule, code for code
  q5_0, q5_1, q4_k, q5_k, q6_k, iq4_nl
              5.5, 6, 4.5, 5.5, 6.63 and 4.5 bits: GGUF's others, of less squared error than ggml's
  mxfp4       4.25 bits: as stored, or chosen
  fp8         8.25 bits: E4M3 codes and scales as stored, with the results of the widened weights bit
              for bit; or chosen, with one scale per output and 128 inputs
The router and the norms are never quantised; attention and head take 8 bits unless told otherwise.

Examples:
  sluice pack MODEL -o STORE --weights int4
  sluice pack MODEL -o STORE --weights int4 --dense bf16 --head bf16 --json
  sluice pack --verify STORE)";

}  // namespace

Command declare_pack(CLI::App& app) {
  auto o = std::make_shared<PackCommandOptions>();
  CLI::App* sub = app.add_subcommand("pack", "Write a model as a packed store, quantised or not");
  add_option(*sub, "model", o->model, "Model directory (with --verify alone: a store)")->required();
  add_option(*sub, "-o,--out", o->out, "The store to write: a directory");
  add_option(*sub, "--weights", o->weights, "Format of the experts: one of those below")
      ->capture_default_str();
  add_option(*sub, "--dense", o->dense,
             "Format of attention and dense layers (default: by --weights)");
  add_option(*sub, "--head", o->head, "Format of the head (default: by --weights)");
  add_option(*sub, "--group", o->group, "int4, int8: inputs per scale, 128, 256 or 512")
      ->capture_default_str();
  add_flag(*sub, "--nearest", o->nearest,
           "No search for the scales of the least error: quicker, where codes are chosen");
  add_flag(*sub, "--verify", o->verify, "Compare every tensor with its checksum");
  add_threads(*sub, o->threads);
  add_flag(*sub, "--json", o->json, "One JSON object, with the error of every tensor");
  sub->footer(kFooter);
  return {sub, [o](Console& console) { return run_pack(*o, console); }, &o->json};
}

}  // namespace sluice
