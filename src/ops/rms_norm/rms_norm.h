// rms_norm: root-mean-square normalisation, alone or in one pass with the residual stream.
//
//   norm(x) = (x * r) * w,  r = 1 / sqrt(sum32(x^2) / D + eps)       w absent: x * r
//   kNorm               out = norm(x)
//   kResidualThenNorm   residual = residual + x;  out = norm(residual)       (pre-norm families)
//   kNormThenResidual   residual = (residual + norm(x)) * scale      (Gemma's post norms; no out)
// sum32 is the fixed tree of simd/scalar.h over fma(x, x, partial). Fused modes equal the chain
// add -> norm or norm -> add -> scale bit for bit. Heads are normalised by viewing [T, H*C] as
// [T*H, C].
//
// tensor   | shape  | dtype | layout
// x        | [T, D] | f32   | row stride; may alias out (kNorm)
// weight   | [D]    | f32   | optional
// residual | [T, D] | f32   | row stride; read and written
// out      | [T, D] | f32   | row stride
// Batch-, thread-invariant; every ISA gives the same bits. |error| <= 8 eps |y| against f64.
// Errors: shapes that disagree, D = 0, eps not finite or negative.
#pragma once

#include "device/device.h"
#include "tensor/view.h"

namespace sluice {

enum class RmsNormMode { kNorm, kResidualThenNorm, kNormThenResidual };

struct RmsNormArgs {
  RmsNormMode mode = RmsNormMode::kNorm;
  ConstMatrixF32 x;
  const float* weight = nullptr;
  float eps = 1e-6f;
  float scale = 1.0f;  // kNormThenResidual only
  MatrixF32 residual;  // the two fused modes
  MatrixF32 out;       // kNorm, kResidualThenNorm
};
Status rms_norm(const ExecContext& context, const RmsNormArgs& args);

}  // namespace sluice
