// Which gated activation, as data: light enough for kernels to include.
#pragma once

#include "base/host_device.h"

namespace sluice {

enum class ActivationKind { kSilu, kGeluTanh, kGeluErf, kSwigluOai };

// Limits around silu and gelu, which are published in both forms (swiglu_oai always clamps before):
//   kBefore  g' = min(g, limit), u' = clamp(u, -limit, limit): act(g') * u'
//   kAfter   min(act(g), limit) * u'
enum class ActivationClamp { kNone, kBefore, kAfter };

// Where bf16 roundings (nearest even) stand around the activation; none: f32 throughout.
struct ActivationRounding {
  bool inputs = false;  // gate and up, as a product stored in bf16 gives them
  // Each step, as a framework without fusion does: act(g); of swiglu_oai alpha * g, the sigmoid,
  // their product with g, and u + 1.
  bool steps = false;
  bool result = false;  // the hidden row, before it is quantised or multiplied
};

struct Activation {
  ActivationKind kind = ActivationKind::kSilu;
  float alpha = 1.702f;  // swiglu_oai
  float limit = 7.0f;    // swiglu_oai, and of a clamp
  ActivationClamp clamp = ActivationClamp::kNone;
  ActivationRounding rounding = {};
};

// Neither clamped nor rounded beyond what the function itself says. Static: kernels of several ISAs
// include this.
SLUICE_HD static inline bool is_plain(const Activation& a) {
  const ActivationRounding& r = a.rounding;
  return a.clamp == ActivationClamp::kNone && !r.inputs && !r.steps && !r.result;
}

}  // namespace sluice
