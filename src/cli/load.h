// Loading a model for a command: runtime, weights, a progress bar, Ctrl-C.
#pragma once

#include <memory>
#include <string>

#include "cli/console.h"
#include "model/model.h"

namespace sluice {

struct LoadRequest {
  std::string model;
  std::string compute = "bf16";
  std::string mode;             // empty: by the format of the weights
  std::string arith;            // instead of compute and mode
  std::string profile = "f32";  // a name of kRoundingProfiles
  int threads = 0;
  std::string device = "cpu";
  bool copy = false;  // of a store's weights
};
struct LoadedModel {
  std::unique_ptr<Runtime> runtime;
  std::unique_ptr<Model> model;  // after the runtime: freed before it
};

Result<Compute> compute_from_name(const std::string& name);
// What --compute, --mode and --arith choose together. An arith is a compute and a mode: f32_fma and
// bf16_tile for every weight that they can multiply (mode a16), bf16_dot the latter with the other
// order where a format has it, int or a8g32 likewise.
struct ArithChoice {
  Compute compute = Compute::kBf16;
  Mode mode = Mode::kDefault;
  bool bf16_dot = false;
};
Result<ArithChoice> arith_choice(const std::string& compute, const std::string& mode,
                                 const std::string& arith);
Result<LoadedModel> load_for(Console& console, const LoadRequest& request);

// The Status of a command that Ctrl-C ended.
inline Status interrupted_status() {
  return {StatusCode::kCancelled, "interrupted"};
}

}  // namespace sluice
