// Which gated activation, as data: light enough for kernels to include.
#pragma once

namespace sluice {

enum class ActivationKind { kSilu, kGeluTanh, kGeluErf, kSwigluOai };

struct Activation {
  ActivationKind kind = ActivationKind::kSilu;
  float alpha = 1.702f;  // swiglu_oai
  float limit = 7.0f;    // swiglu_oai
};

}  // namespace sluice
