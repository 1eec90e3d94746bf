#include "cli/load.h"

namespace sluice {

Result<Compute> compute_from_name(const std::string& name) {
  if (name == "f32") return Compute::kF32;
  if (name == "bf16") return Compute::kBf16;
  return invalid_argument("compute: expected f32 or bf16, got \"{}\"", name);
}

Result<LoadedModel> load_for(Console& console, const LoadRequest& request) {
  LoadedModel loaded;
  LoadOptions options;
  SLUICE_ASSIGN_OR_RETURN(options.compute, compute_from_name(request.compute));
  SLUICE_ASSIGN_OR_RETURN(loaded.runtime,
                          Runtime::create({.threads = request.threads, .device = request.device}));
  options.copy = request.copy;
  Progress progress(console, "loading");
  options.progress = [&](size_t done, size_t total) {
    progress.update(done, total);
    return !interrupted();
  };
  SLUICE_ASSIGN_OR_RETURN(loaded.model, load_model(*loaded.runtime, request.model, options));
  if (interrupted()) return interrupted_status();
  return loaded;
}

}  // namespace sluice
