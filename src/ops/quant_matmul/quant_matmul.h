// quant_matmul: rows in int8 times weights in int8 or int4, or fp8 times fp8, with given scales,
// expert by expert.
//
//   int8_row: S(t, n, g) = sum of x[t, k] * w[n, k] over the group g of k       exact, in int32
//             y[t, n]    = sum over g ascending of (f32(S) * w_scale[n, g]) * x_scale[t, g]
//   fp8_row:  S(t, n, g) = the sum over the group in the order of arith bf16_tile (tensor/arith.h):
//                          of each 32 k of the group from its first, e = FMA chain over even k from
//                          0, o = over odd k, S = S + (e + o). The products of two e4m3 are exact.
//             y[t, n]    = sum over g ascending of (S * x_scale[t, g]) * w_scale[n, g]
// in f32, every operation rounded, the first term as it is; then y is rounded to `round`.
// int8_row is mojo_opset's quantised linear; fp8_row is MAX's and SGLang's scaled fp8 product, with
// one scale of a tensor, of rows and channels (a single group), or of 1 x 128 by 128 x 128 blocks.
// Whatever T, the threads or the ISA.
//
// tensor  | shape        | dtype        | layout
// x       | [T, K]       | int8 or e4m3 | row stride; rows sorted by expert
// x_scale | [T, G]       | f32          | any strides; G = 1, or the groups of the weights
// counts  | [E]          | i32          | rows of each expert; empty: E = 1, all rows
// experts | [E] pointers | [N, K]       | pack_quant_weights; one shape, codes and group for all
// out     | [T, N]       | f32          | row stride; values of the dtype that `round` names
// K <= 65536, so that no sum leaves int32. |error| before `round`, against f64 of these operands,
// with eps = 2^-24: integers <= (G + 2) eps sum_g |term|; fp8, where no term is subnormal,
// <= 1.01 (19 + G + steps) eps sum_k |x w x_scale w_scale|, steps = ceil(group / 32): 16 roundings
// of a chain, one of e + o, one of each step and group, two of scales. NaN in x makes its row NaN.
// Errors: shapes that disagree, counts that are negative or do not add to T, a missing expert that
// has rows, a workspace too small.
#pragma once

#include <cstdint>
#include <span>

#include "device/device.h"
#include "ops/quant_matmul/quant_weights.h"
#include "tensor/view.h"

namespace sluice {

enum class RoundTo { kF32, kBF16, kF16 };

// x_scale[t, g] = data[t * row_stride + g * group_stride]; strides 0 and 0: one of the tensor.
struct RowScales {
  const float* data = nullptr;
  int64_t row_stride = 1, group_stride = 0;
};

struct QuantMatmulArgs {
  MatrixView<const int8_t> x;  // fp8: the bits of e4m3fn codes
  RowScales x_scale;
  std::span<const int32_t> counts;
  std::span<const QuantWeights* const> experts;
  RoundTo round = RoundTo::kF32;
  MatrixF32 out;
};
// `group` as in the weights (0: per channel).
size_t quant_matmul_workspace_bytes(int64_t max_rows, int64_t experts, int64_t k, int64_t group,
                                    QuantCodes codes = QuantCodes::kInt8);
Status quant_matmul(const ExecContext& context, const QuantMatmulArgs& args, Workspace workspace);

}  // namespace sluice
