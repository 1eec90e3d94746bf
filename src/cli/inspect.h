// The body of `sluice inspect`: what a model directory holds, what it will cost, whether it loads.
#pragma once

#include <string>

#include "base/status.h"
#include "cli/console.h"

namespace sluice {

struct InspectOptions {
  std::string model;
  std::string compute = "bf16";
  std::string mode, arith;  // as of a run: which arith each role would use
  int threads = 0;
  int64_t tokens = 512;  // the context for which memory is foretold
  bool json = false;
};

// Prints all it can find out, and then fails with the first reason why the model would not load.
Status run_inspect(const InspectOptions& options, Console& console);

}  // namespace sluice
