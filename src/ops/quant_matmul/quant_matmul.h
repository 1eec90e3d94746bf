// quant_matmul: rows in int8 times weights in int8 or int4 with given scales, expert by expert.
//
//   S(t, n, g) = sum of x[t, k] * w[n, k] over the group g of k             exact, in int32
//   y[t, n]    = sum over g ascending of (f32(S) * w_scale[n, g]) * x_scale[t]
// in f32, every operation rounded, the first term as it is; then y is rounded to `round`. That is
// the arith `int8_row`: mojo_opset's quantised linear, whatever T, the threads or the ISA.
//
// tensor  | shape        | dtype     | layout
// x       | [T, K]       | int8      | row stride; rows sorted by expert
// x_scale | [T]          | f32       | contiguous
// counts  | [E]          | i32       | rows of each expert; empty: E = 1, all rows
// experts | [E] pointers | [N, K]    | pack_quant_weights; one shape, bits and group for all
// out     | [T, N]       | f32       | row stride; values of the dtype that `round` names
// K <= 65536, so that no sum leaves int32. |error| against f64 of the same operands
// <= (groups + 2) eps sum_g |term|, before `round`.
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

struct QuantMatmulArgs {
  MatrixView<const int8_t> x;
  const float* x_scale = nullptr;
  std::span<const int32_t> counts;
  std::span<const QuantWeights* const> experts;
  RoundTo round = RoundTo::kF32;
  MatrixF32 out;
};
// `group` as in the weights (0: per channel).
size_t quant_matmul_workspace_bytes(int64_t max_rows, int64_t experts, int64_t k, int64_t group);
Status quant_matmul(const ExecContext& context, const QuantMatmulArgs& args, Workspace workspace);

}  // namespace sluice
