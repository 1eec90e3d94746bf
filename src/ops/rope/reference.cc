#include "ops/rope/angle.h"
#include "ops/rope/kernels.h"
#include "ops/rope/turn.h"

namespace sluice {

void rope_angles_f64_reference(const RopeRows& a) {
  for (int64_t t = 0; t < a.rows; ++t)
    for (int64_t i = 0; i < a.half; ++i)
      rope_angle(a.positions[t], a.inv_freq[i], a.factor, a.table + (t * a.half + i) * 2);
}

void rope_f32_reference(const RopeRows& a) {
  for (int64_t t = 0; t < a.rows; ++t) {
    for (int64_t h = 0; h < a.heads; ++h) {
      float* x = a.x + t * a.stride + h * 2 * a.half;
      const float* cos_sin = a.cos_sin + t * a.half * 2;
      for (int64_t i = 0; i < a.half; ++i)
        rope_turn(cos_sin[2 * i], cos_sin[2 * i + 1], x[i], x[i + a.half]);
    }
  }
}

}  // namespace sluice
