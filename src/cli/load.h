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
  int threads = 0;
  std::string device = "cpu";
  bool copy = false;  // of a store's weights
};
struct LoadedModel {
  std::unique_ptr<Runtime> runtime;
  std::unique_ptr<Model> model;  // after the runtime: freed before it
};

Result<Compute> compute_from_name(const std::string& name);
Result<LoadedModel> load_for(Console& console, const LoadRequest& request);

// The Status of a command that Ctrl-C ended.
inline Status interrupted_status() {
  return {StatusCode::kCancelled, "interrupted"};
}

}  // namespace sluice
