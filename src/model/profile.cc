#include "model/profile.h"

#include <algorithm>
#include <cmath>

#include "base/fp.h"

namespace sluice {
namespace {

// The scale of a bf16 model, out of scale * D^-0.5: two f32 roundings away from it, so that
// rounding to bf16 gives its own bits. A scale that was stored in f32 is rounded, as loading that
// model in bf16 does.
Result<F32Vector> unfolded_scale(Device& device, const F32Vector& folded) {
  std::vector<float> scale(folded.size());
  SLUICE_RETURN_IF_ERROR(device.download(scale.data(),
                                         reinterpret_cast<const std::byte*>(folded.data()),
                                         scale.size() * sizeof(float), nullptr));
  const float root = 1.0f / std::sqrt(static_cast<float>(scale.size()));
  for (float& v : scale) v = round_to_bf16(v / root);
  F32Vector out(std::move(scale));
  SLUICE_RETURN_IF_ERROR(out.move_to(device));
  return out;
}

}  // namespace

Status apply_profile(Device& device, const RoundingProfile& profile, Model& model,
                     const std::string& path) {
  const auto& layers = model.spec.layers;
  const bool routed = std::any_of(layers.begin(), layers.end(),
                                  [](const LayerSpec& l) { return l.moe.has_value(); });
  if (!routed && profile.name != kF32Profile.name)
    return invalid_argument("{}: rounding profile {} is for expert layers; this model has none",
                            path, profile.name);
  model.profile = profile;
  if (!profile.router.norm) return ok_status();
  for (LayerWeights& l : model.layers) {
    if (l.moe.router_norm.empty()) continue;
    SLUICE_ASSIGN_OR_RETURN(l.moe.router_scale, unfolded_scale(device, l.moe.router_norm));
  }
  return ok_status();
}

}  // namespace sluice
