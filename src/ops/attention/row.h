// The scalar steps of one query row that the reference and the CUDA kernels share.
#pragma once

#include <cstdint>

#include "simd/scalar.h"

namespace sluice {

// Absolute positions of one split: the order of operations of attention.h is anchored to them.
inline constexpr int64_t kAttentionSplit = 128;

// The first key that a query at `position` sees; window 0 sees all.
SLUICE_HD constexpr int64_t first_visible(int64_t position, int64_t window) {
  return window > 0 && position - window + 1 > 0 ? position - window + 1 : 0;
}

SLUICE_HD inline float finish_score(float dot, float scale, float softcap) {
  const float z = scale * dot;
  return softcap > 0 ? softcap * scalar::tanh(z / softcap) : z;
}

// The maximum and the sum of exponentials of the splits so far, and the factors that bring the
// weighted values of the state (x) and of the next split (y) to their common maximum.
struct AttentionMerge {
  float m, l;
  float x = 0.0f, y = 0.0f;
  SLUICE_HD void add(float m_i, float l_i) {
    const float merged = scalar::max(m, m_i);
    x = scalar::exp(m - merged);
    y = scalar::exp(m_i - merged);
    l = scalar::fma(l, x, l_i * y);
    m = merged;
  }
  SLUICE_HD float weighted(float a, float a_i) const { return scalar::fma(a, x, a_i * y); }
  SLUICE_HD float result(float a) const { return l == 0.0f ? 0.0f : a / l; }
};

SLUICE_HD inline AttentionMerge attention_start(const float* sinks, int64_t h) {
  if (sinks != nullptr) return {sinks[h], 1.0f};
  return {-__builtin_inff(), 0.0f};
}

}  // namespace sluice
