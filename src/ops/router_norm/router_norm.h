// router_norm: the residual stream as a router of its own norm reads it (Gemma 4).
//
//   n = x * r,  r = 1 / sqrt(sum32(x^2) / D + eps)                     no weight
//   out = (n * scale[d]) * D^-0.5
// round_bf16: x, n, n * scale and out are each rounded to bf16, nearest even, as the chain of ops
// on bf16 tensors does; the factor D^-0.5 is an f32 in both. The router's linear, softmax and top-k
// are matmul and moe_route (RouteRounding). Folding scale * D^-0.5 into one weight, as rms_norm
// with a weight would, rounds once where the chain rounds three times: it is not the same router.
//
// tensor | shape  | dtype | layout
// x      | [T, D] | f32   | row stride; may alias out
// scale  | [D]    | f32   |
// out    | [T, D] | f32   | row stride
// Batch-, thread-invariant; every ISA gives the same bits.
// Errors: shapes that disagree, D = 0, scale missing, eps not finite or negative.
#pragma once

#include "device/device.h"
#include "tensor/view.h"

namespace sluice {

struct RouterNormArgs {
  ConstMatrixF32 x;
  const float* scale = nullptr;
  float eps = 1e-6f;
  bool round_bf16 = false;
  MatrixF32 out;
};
Status router_norm(const ExecContext& context, const RouterNormArgs& args);

}  // namespace sluice
