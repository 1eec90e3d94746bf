#include <cmath>

#include "ops/rope/kernels.h"
#include "ops/rope/rope.h"
#include "simd/scalar.h"

namespace sluice {

void rope_angle_rows(const RopeAnglesArgs& a, int64_t begin, int64_t end) {
  const int64_t half = static_cast<int64_t>(a.inv_freq.size());
  for (int64_t t = begin; t < end; ++t) {
    const double position = a.positions[static_cast<size_t>(t)];
    for (int64_t i = 0; i < half; ++i) {
      const double angle = position * a.inv_freq[static_cast<size_t>(i)];
      a.cos_sin[(t * half + i) * 2] = static_cast<float>(std::cos(angle) * a.factor);
      a.cos_sin[(t * half + i) * 2 + 1] = static_cast<float>(std::sin(angle) * a.factor);
    }
  }
}

void rope_f32_reference(const RopeRows& a) {
  for (int64_t t = 0; t < a.rows; ++t) {
    for (int64_t h = 0; h < a.heads; ++h) {
      float* x = a.x + t * a.stride + h * 2 * a.half;
      for (int64_t i = 0; i < a.half; ++i) {
        const float cos = a.cos_sin[(t * a.half + i) * 2];
        const float sin = a.cos_sin[(t * a.half + i) * 2 + 1];
        const float u = x[i], v = x[i + a.half];
        x[i] = scalar::fma(u, cos, -(v * sin));
        x[i + a.half] = scalar::fma(v, cos, u * sin);
      }
    }
  }
}

}  // namespace sluice
