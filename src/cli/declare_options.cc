// Options that several commands have.
#include "cli/cli.h"
#include "cli/load.h"
#include "ops/moe_experts/rounding_profile.h"

namespace sluice {

void add_mode(CLI::App& app, std::string& mode) {
  add_option(app, "--mode", mode,
             "Products of low-bit weights: int, a8g32, fp8 or a16 (default: by their format)")
      ->check(CLI::IsMember({"int", "a8g32", "fp8", "a16"}));
}

void add_mode(CLI::App& app, std::string& mode, std::string& arith, const std::string& instead_of) {
  add_mode(app, mode);
  add_option(
      app, "--arith", arith,
      "Instead of " + instead_of + ": f32_fma, bf16_tile, bf16_dot, int, int16, a8g32 or fp8_g128")
      ->check(
          CLI::IsMember({"f32_fma", "bf16_tile", "bf16_dot", "int", "int16", "a8g32", "fp8_g128"}));
}

void add_profile(CLI::App& app, std::string& profile) {
  add_option(app, "--profile", profile,
             "Where expert layers round to bf16, and in which order they add: as " +
                 rounding_profile_names() + "; f32 is Sluice's own, which rounds nowhere")
      ->check(
          [](const std::string& name) { return parse_rounding_profile(name).status().message(); })
      ->capture_default_str();
}

void add_threads(CLI::App& app, int& threads) {
  add_option(app, "--threads", threads, "Worker threads (default: one per core)")
      ->check(CLI::Range(1, 1024));
}

void add_load_options(CLI::App& app, LoadRequest& load) {
  add_option(app, "--compute", load.compute, "f32, or bf16 (inputs of products, KV cache)")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();
  add_mode(app, load.mode, load.arith, "--compute and --mode");
  add_profile(app, load.profile);
  add_option(app, "--device", load.device,
             "Where steps run: cpu, cuda, cuda:N or auto (a CUDA device where there is one)")
      ->capture_default_str();
  add_threads(app, load.threads);
  add_flag(app, "--copy-weights", load.copy,
           "A store: copy the weights into memory of large pages, where the file has small ones");
}

}  // namespace sluice
