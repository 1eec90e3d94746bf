// rope: rotary position embedding, half-split pairing (i, i + C/2).
//
//   angle = position * inv_freq[i]                       (f64)
//   cos_sin[t, i] = f32(cos(angle) * factor), f32(sin(angle) * factor)
//   y[i]       = fma(x[i], cos, -(x[i + C/2] * sin))
//   y[i + C/2] = fma(x[i + C/2], cos, x[i] * sin)
// Sine and cosine are those of angle.h, f64 and without libm: the same bits on every machine and
// backend, with no table of positions to upload.
// inv_freq[i] = 0 leaves a pair alone but for `factor` (Gemma 4's proportional rope).
//
// tensor   | shape       | dtype | layout
// positions| [T]         | i32   | contiguous
// inv_freq | [C/2]       | f64   | host memory on every backend, carried by the launch; |f| <= 2^20
// cos_sin  | [T, C/2, 2] | f32   | contiguous; made once per step and rope kind, for every layer
// x        | [T, H*C]    | f32   | row stride; in place
// Errors: C odd, shapes that disagree.
#pragma once

#include <span>

#include "device/device.h"
#include "tensor/view.h"

namespace sluice {

struct RopeAnglesArgs {
  std::span<const int32_t> positions;  // [T]
  std::span<const double> inv_freq;    // [C/2]
  double factor = 1.0;                 // YaRN's concentration
  float* cos_sin = nullptr;
};
Status rope_angles(const ExecContext& context, const RopeAnglesArgs& args);

struct RopeArgs {
  MatrixF32 x;
  int64_t head_size = 0;  // C
  const float* cos_sin = nullptr;
};
Status rope(const ExecContext& context, const RopeArgs& args);

}  // namespace sluice
