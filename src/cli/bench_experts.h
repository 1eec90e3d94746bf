// The body of `sluice bench experts`: a layer of synthetic experts at a published model's shape,
// through the public moe_experts, timed beside the roofs of this machine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/console.h"

namespace sluice {

struct BenchExpertsOptions {
  std::string shape = "qwen3-30b-a3b";  // a name of bench_shapes(), or D,I,E,K
  std::string weights = "bf16";         // a name of bench_weights()
  std::vector<int64_t> tokens = {1, 8, 16, 64, 512};
  std::string mode, arith;          // of the products; empty: the format's default
  std::string profile = "f32";      // where the layer rounds: a name of kRoundingProfiles
  std::string routing = "uniform";  // uniform, zipf or one
  double rotate_gb = 2.2;           // bytes of weights that calls take turns in
  double seconds = 1.0;             // at least, per number of tokens
  bool prefused = true;  // false: a step with raw weights, which it packs itself, is timed, too
  int threads = 0;
  uint64_t seed = 1;
  bool json = false;
};

// "qwen3-30b-a3b, gemma4-26b-a4b, ..." and "f32, bf16, ..."
std::string bench_shapes();
std::string bench_weights();
Status run_bench_experts(const BenchExpertsOptions& options, Console& console);

}  // namespace sluice
