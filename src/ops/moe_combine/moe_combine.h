// moe_combine: the weighted sum of a token's expert rows, with the norm or residual that follows.
//
//   c[t] = sum over k ascending of w[t, k] * y[inverse[t*K + k]]:  acc = 0; acc = fma(w, y, acc)
// (dropped pairs, inverse < 0, are skipped), then by `then`:
//   kStore        out = c
//   kResidualAdd  residual = residual + c
//   kRmsNorm      out = norm(c)                       (Gemma 4's post_feedforward_layernorm_2)
//   kResidualThenNorm  residual = residual + c; out = norm(residual)    (the next layer's norm)
//   kBranches     branch = norm(branch; branch_weight) + norm(c);
//                 residual = (residual + norm(branch; post_weight)) * scale
//                 (Gemma 4's parallel branches: branch is the dense one;
//                 it and out are scratch afterwards)
// Fused forms equal the chain of moe_combine, add and rms_norm bit for bit. `rounding` puts bf16
// roundings, unfused products or the order of the slots (ascending expert) in the sum, as other
// implementations have them (moe_experts/rounding_profile.h); the default has none.
//
// tensor  | shape    | dtype | layout
// y       | [R, D]   | f32   | row stride; slots of the CSR order
// inverse | [T*K]    | i32   |
// weights | [T, K]   | f32   | none: all 1
// out     | [T, D]   | f32   | row stride;  residual and branch likewise
// On CUDA devices every array is the device's and inverse is trusted.
// Errors: shapes, a slot outside y.
#pragma once

#include <span>

#include "device/device.h"
#include "ops/moe_combine/combine_then.h"
#include "tensor/view.h"

namespace sluice {

struct CombineBranches {
  MatrixF32 branch;  // the other branch, before its norm; it is written
  const float* branch_weight = nullptr;
  const float* post_weight = nullptr;
  float scale = 1.0f;
};
struct MoeCombineArgs {
  ConstMatrixF32 y;
  std::span<const int32_t> inverse;
  std::span<const float> weights;
  int64_t k = 0;
  CombineRounding rounding;
  CombineThen then = CombineThen::kStore;
  const float* norm_weight = nullptr;  // the forms with a norm
  float eps = 1e-6f;
  MatrixF32 out;       // all but kResidualAdd
  MatrixF32 residual;  // kResidualAdd, kResidualThenNorm, kBranches
  CombineBranches branches;
};
Status moe_combine(const ExecContext& context, const MoeCombineArgs& args);

}  // namespace sluice
