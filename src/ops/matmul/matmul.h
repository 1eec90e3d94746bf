// matmul: y = x W^T (+ bias) with packed weights, for any number of rows.
//
//   out[t, n] = dot_arith(x[row(t), :], W[n, :]) (+ bias[n])         row(t) = rows ? rows[t] : t
// The order of the dot product is the arith's (tensor/arith.h), whatever T: a row's bits do not
// depend on the other rows, on threads or on the ISA.
//
// tensor | shape  | dtype                | layout
// x      | [*, K] | f32                  | row stride; rounded as the arith says
// rows   | [T]    | i32                  | optional gather of x's rows (rows that want logits)
// w      | [N, K] | f32, bf16, mxfp4,    | kPanel16
//        |        | fp8, int4, int8 and  |
//        |        | GGUF's (packed.h)    |
// bias   | [N]    | f32                  | optional, added last
// out    | [T, N] | f32                  | row stride; must not alias x
// Arith: f32_fma takes every format; bf16_tile all but f32 (mxfp4 dequantised exactly to bf16, the
// other low-bit formats to f32 and rounded once to bf16: ops/matmul/block_values.h, fp8_panels.h);
// bf16_dot takes bf16, mxfp4; int takes int4, int16 int8; a8g32 takes GGUF's formats and mxfp4;
// fp8_g128 takes fp8, and gives the bits of quantize_rows (without a bound of scales) and
// quant_matmul (fp8_row, groups of 128).
// |error| against f64 of the same rounded inputs <= 2 eps sqrt(K) |x||w| (unit scale).
// On CUDA devices every array, the panels of w included, is the device's, and `rows` is trusted.
// Errors: shapes that disagree, a layout or format without a kernel, a workspace too small.
#pragma once

#include <span>

#include "device/device.h"
#include "tensor/arith.h"
#include "weights/packed.h"

namespace sluice {

struct MatmulArgs {
  Arith arith = Arith::kF32Fma;
  ConstMatrixF32 x;
  std::span<const int32_t> rows;  // empty: all rows of x in order
  const PackedMatrix* w = nullptr;
  const float* bias = nullptr;
  MatrixF32 out;
};
size_t matmul_workspace_bytes(int64_t max_rows, int64_t max_k);
Status matmul(const ExecContext& context, const MatmulArgs& args, Workspace workspace);

}  // namespace sluice
