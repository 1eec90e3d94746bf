#include "cli/load.h"

namespace sluice {

Result<Compute> compute_from_name(const std::string& name) {
  if (name == "f32") return Compute::kF32;
  if (name == "bf16") return Compute::kBf16;
  return invalid_argument("compute: expected f32 or bf16, got \"{}\"", name);
}

Result<ArithChoice> arith_choice(const std::string& compute, const std::string& mode,
                                 const std::string& arith) {
  ArithChoice out;
  SLUICE_ASSIGN_OR_RETURN(out.compute, compute_from_name(compute));
  if (!mode.empty()) {
    for (int i = 1; i < kModes; ++i)
      if (mode_name(static_cast<Mode>(i)) == mode) out.mode = static_cast<Mode>(i);
    if (out.mode == Mode::kDefault)
      return invalid_argument("mode: expected int, a8g32, fp8 or a16, got \"{}\"", mode);
  }
  if (arith.empty()) return out;
  const std::optional<Arith> chosen = arith_from_name(arith);
  if (!chosen)
    return invalid_argument(
        "arith: expected f32_fma, bf16_tile, bf16_dot, int, int16, a8g32 or fp8_g128, got \"{}\"",
        arith);
  if (!mode.empty())
    return invalid_argument("arith and mode: {} says the mode, too; give one of them", arith);
  if (quantizes_x(*chosen)) {
    out.mode = *chosen == Arith::kA8G32     ? Mode::kA8G32
               : *chosen == Arith::kFp8G128 ? Mode::kFp8
                                            : Mode::kInt;
    return out;
  }
  out.compute = *chosen == Arith::kF32Fma ? Compute::kF32 : Compute::kBf16;
  out.mode = Mode::kA16;
  out.bf16_dot = *chosen == Arith::kBf16Dot;
  return out;
}

Result<LoadedModel> load_for(Console& console, const LoadRequest& request) {
  LoadedModel loaded;
  LoadOptions options;
  SLUICE_ASSIGN_OR_RETURN(const ArithChoice choice,
                          arith_choice(request.compute, request.mode, request.arith));
  options.compute = choice.compute;
  options.mode = choice.mode;
  options.bf16_dot = choice.bf16_dot;
  SLUICE_ASSIGN_OR_RETURN(options.profile, parse_rounding_profile(request.profile));
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
