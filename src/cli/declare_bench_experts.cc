#include "cli/bench_experts.h"
#include "cli/cli.h"

namespace sluice {
namespace {

constexpr const char* kFooter =
    R"(What is timed: one layer of experts, from routed ids and weights to the combined rows (sort, gate and
up, activation, down, combine), by the same call as a model makes. Each call routes anew and takes
the next copy of the layer, so that the weights come from memory and not from a cache; calls on
more than --rotate gigabytes in all. Medians over at least --time seconds of calls.

Columns:
  tokens   T of the call                     experts  distinct experts that had rows (mean)
  us       median of the calls               best     the fastest one
  GOP/s    2 T K 3 D I operations / us       GB/s     bytes of distinct experts / us
  roof us  the longer of: those bytes at the rate at which all workers read these very weights,
           those operations at the peak of the arith's instruction; both measured in this run
  roof %   roof us / us

Examples:
  sluice bench experts --shape gpt-oss-20b --weights mxfp4 --tokens 1,64,512
  sluice bench experts --shape 2048,768,128,8 --weights bf16 --routing zipf --json
  SLUICE_ISA=avx2 sluice bench experts --tokens 16 --threads 1)";

}  // namespace

Command declare_bench(CLI::App& app) {
  auto o = std::make_shared<BenchExpertsOptions>();
  CLI::App* bench = app.add_subcommand("bench", "Speed of this machine's kernels");
  bench->require_subcommand(1);
  bench->footer("Examples:\n  sluice bench experts --help");
  CLI::App* sub = bench->add_subcommand("experts", "A layer of experts beside the machine's roofs");
  add_option(*sub, "--shape", o->shape, bench_shapes() + ", or D,I,E,K")->capture_default_str();
  add_option(*sub, "--weights", o->weights, "Format: " + bench_weights())->capture_default_str();
  add_mode(*sub, o->mode, o->arith, "--mode");
  add_profile(*sub, o->profile);
  add_option(*sub, "--tokens", o->tokens, "Numbers of tokens, as in 1,8,64")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  add_option(*sub, "--routing", o->routing,
             "uniform, zipf (rank r with weight 1/r) or one (all tokens the same experts)")
      ->check(CLI::IsMember({"uniform", "zipf", "one"}))
      ->capture_default_str();
  add_option(*sub, "--rotate", o->rotate_gb, "Gigabytes of weights that calls take turns in")
      ->check(CLI::Range(0.0, 1024.0))
      ->capture_default_str();
  add_option(*sub, "--time", o->seconds, "Seconds of calls per number of tokens, at least")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  add_option(*sub, "--prefused", o->prefused,
             "no: also time steps with raw f32 weights, which each pack what they need")
      ->capture_default_str();
  add_option(*sub, "--seed", o->seed, "Of weights, inputs and routing")->capture_default_str();
  add_threads(*sub, o->threads);
  add_flag(*sub, "--json", o->json, "One JSON object");
  sub->footer(kFooter);
  return {sub, [o](Console& console) { return run_bench_experts(*o, console); }, &o->json};
}

}  // namespace sluice
