// How ariths `int` and `int16` quantise x, scalar: the definition.
#pragma once

#include <cmath>
#include <cstdint>

#include "weights/packed.h"

namespace sluice {

// One block of a row of x, as the arith says.
struct IntRowBlock {
  int32_t code[kIntBlock] = {};
  float scale = 0;
};

// The codes' largest magnitude is 127, or 32639 for int16.
template <bool wide = false>
IntRowBlock quantize_row(const float* x, int64_t count) {
  IntRowBlock out;
  float amax = 0;
  bool finite = true;
  for (int64_t k = 0; k < count; ++k) {
    finite = finite && std::isfinite(x[k]);
    amax = std::fabs(x[k]) > amax ? std::fabs(x[k]) : amax;
  }
  out.scale = (amax > 1e-12f ? amax : 1e-12f) / (wide ? 32639.0f : 127.0f);
  if (!wide && out.scale < 1e-6f) out.scale = 1.0f;
  if (!finite) out.scale = NAN;
  for (int64_t k = 0; finite && k < count; ++k)
    out.code[k] = static_cast<int32_t>(std::nearbyint(x[k] / out.scale));
  return out;
}

}  // namespace sluice
