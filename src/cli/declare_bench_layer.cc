#include "cli/bench_experts.h"
#include "cli/bench_layer.h"
#include "cli/cli.h"

namespace sluice {
namespace {

constexpr const char* kFooter =
    R"(What is timed: one decoder layer over --tokens new tokens of one sequence behind --context cached
ones, op by op in the order of a model's step; the experts take the next copy of their weights each
time, the others keep theirs. What runs once a step (embedding, angles, head) is not in it. Medians
over at least --time seconds of steps; shares are of the sum of the ops' medians.

Examples:
  sluice bench layer --shape gemma4-26b-a4b --tokens 128
  sluice bench layer --shape gpt-oss-20b --weights mxfp4 --tokens 1 --context 4096 --json)";

}  // namespace

// Behind declare_bench, whose command it joins.
Command declare_bench_layer(CLI::App& app) {
  auto o = std::make_shared<BenchLayerOptions>();
  CLI::App* sub = app.get_subcommand("bench")->add_subcommand(
      "layer", "A decoder layer, op by op, with each op's share");
  add_option(*sub, "--shape", o->shape, bench_layer_shapes() + ", or D,I,E,K")
      ->capture_default_str();
  add_option(*sub, "--weights", o->weights, "Format of the experts: " + bench_weights())
      ->capture_default_str();
  add_option(*sub, "--dense", o->dense, "Format of attention and a dense branch")
      ->capture_default_str();
  add_mode(*sub, o->mode);
  add_profile(*sub, o->profile);
  add_option(*sub, "--tokens", o->tokens, "Numbers of tokens, as in 1,128")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  add_option(*sub, "--context", o->context, "Cached tokens before them")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  add_option(*sub, "--rotate", o->rotate_gb, "Gigabytes of experts that steps take turns in")
      ->check(CLI::Range(0.0, 1024.0))
      ->capture_default_str();
  add_option(*sub, "--time", o->seconds, "Seconds of steps per number of tokens, at least")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  add_option(*sub, "--seed", o->seed, "Of weights and inputs")->capture_default_str();
  add_threads(*sub, o->threads);
  add_flag(*sub, "--json", o->json, "One JSON object");
  sub->footer(kFooter);
  return {sub, [o](Console& console) { return run_bench_layer(*o, console); }, &o->json};
}

}  // namespace sluice
