// The body of `sluice bench layer`: one decoder layer at a published model's shape, with synthetic
// weights, op by op as model/forward.cc calls them, each timed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/console.h"

namespace sluice {

struct BenchLayerOptions {
  std::string shape = "gemma4-26b-a4b";  // a name of bench_layer_shapes(), or D,I,E,K
  std::string weights = "bf16";          // of the experts: a name of bench_weights()
  std::string dense = "bf16";            // of attention and the dense branch
  std::string mode;                      // of both; empty: each format's own
  std::string profile = "f32";           // where the experts round: a name of kRoundingProfiles
  std::vector<int64_t> tokens = {1, 128};
  int64_t context = 0;     // cached tokens before them
  double rotate_gb = 2.2;  // bytes of expert weights that steps take turns in
  double seconds = 1.0;    // at least, per number of tokens
  int threads = 0;
  uint64_t seed = 1;
  bool json = false;
};

std::string bench_layer_shapes();
Status run_bench_layer(const BenchLayerOptions& options, Console& console);

}  // namespace sluice
