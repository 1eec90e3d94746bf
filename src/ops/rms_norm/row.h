// The definition of one normalised row, scalar: what every vector form repeats bit for bit.
// rms_norm's reference and the reference of ops that end in a norm (moe_combine) include it.
#pragma once

#include <cmath>
#include <cstdint>

#include "simd/scalar.h"

namespace sluice::scalar {

// r of a row whose squares sum to `sum`.
SLUICE_HD inline float rms_factor(float sum, int64_t d, float eps) {
  return 1.0f / std::sqrt(sum / static_cast<float>(d) + eps);
}

// One value of a row with that r; weight may be null.
SLUICE_HD inline float rms_norm_value(float x, float r, const float* weight, int64_t i) {
  return weight != nullptr ? (x * r) * weight[i] : x * r;
}

// out = norm(x); weight may be null; out may be x.
SLUICE_HD inline void rms_norm_row(const float* x, const float* weight, float eps, int64_t d,
                                   float* out) {
  Sum32 sum;
  for (int64_t i = 0; i < d; ++i) sum.add_product(i, x[i], x[i]);
  const float r = rms_factor(sum.total(), d, eps);
  for (int64_t i = 0; i < d; ++i) out[i] = rms_norm_value(x[i], r, weight, i);
}

}  // namespace sluice::scalar
