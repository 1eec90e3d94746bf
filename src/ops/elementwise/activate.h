// One gated activation, scalar: the definition that glu and every fused epilogue share.
#pragma once

#include "base/fp.h"
#include "ops/elementwise/activation.h"
#include "simd/scalar.h"

namespace sluice {

SLUICE_HD inline float bf16_if(bool rounded, float v) {
  return rounded ? round_to_bf16(v) : v;
}

// act(gate) of silu and gelu.
SLUICE_HD inline float gate_activation(ActivationKind kind, float gate) {
  if (kind == ActivationKind::kSilu) return scalar::silu(gate);
  return kind == ActivationKind::kGeluTanh ? scalar::gelu_tanh(gate) : scalar::gelu_erf(gate);
}

// With clamps and roundings. The limit is the first operand of min and max: a NaN stays one.
SLUICE_HD inline float activate_stepwise(const Activation& a, float gate, float up) {
  const ActivationRounding& r = a.rounding;
  float g = bf16_if(r.inputs, gate), u = bf16_if(r.inputs, up);
  if (a.kind == ActivationKind::kSwigluOai || a.clamp == ActivationClamp::kBefore)
    g = scalar::min(a.limit, g);
  if (a.kind == ActivationKind::kSwigluOai || a.clamp != ActivationClamp::kNone)
    u = scalar::max(-a.limit, scalar::min(a.limit, u));
  if (a.kind == ActivationKind::kSwigluOai) {
    const float s = bf16_if(r.steps, scalar::sigmoid(bf16_if(r.steps, a.alpha * g)));
    return bf16_if(r.result, bf16_if(r.steps, u + 1.0f) * bf16_if(r.steps, g * s));
  }
  float v = bf16_if(r.steps, gate_activation(a.kind, g));
  if (a.clamp == ActivationClamp::kAfter) v = scalar::min(a.limit, v);
  return bf16_if(r.result, v * u);
}

SLUICE_HD inline float activate(const Activation& activation, float gate, float up) {
  if (!is_plain(activation)) return activate_stepwise(activation, gate, up);
  if (activation.kind == ActivationKind::kSwigluOai)
    return scalar::swiglu_oai(gate, up, activation.alpha, activation.limit);
  return gate_activation(activation.kind, gate) * up;
}

}  // namespace sluice
