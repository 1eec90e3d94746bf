// One gated activation, scalar: the definition that glu and every fused epilogue share.
#pragma once

#include "ops/elementwise/activation.h"
#include "simd/scalar.h"

namespace sluice {

SLUICE_HD inline float activate(const Activation& activation, float gate, float up) {
  switch (activation.kind) {
    case ActivationKind::kSilu:
      return scalar::silu(gate) * up;
    case ActivationKind::kGeluTanh:
      return scalar::gelu_tanh(gate) * up;
    case ActivationKind::kGeluErf:
      return scalar::gelu_erf(gate) * up;
    case ActivationKind::kSwigluOai:
      return scalar::swiglu_oai(gate, up, activation.alpha, activation.limit);
  }
  return 0.0f;
}

}  // namespace sluice
