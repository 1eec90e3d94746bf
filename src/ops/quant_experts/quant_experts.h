// quant_experts: an expert layer whose activations are quantised dynamically: with int8 and int4
// weights as mojo_opset's MojoQuantExperts, with fp8 weights by MAX's rule of dynamic fp8. Rows
// sorted by expert in, rows of the same order out.
//
//   quantize_rows(x, inv_smooth_up)              codes and one scale per row, or per group of the
//                                                weights; kInt8, or kE4m3 where the weights are fp8
//   up = quant_matmul, rounded to `round`        [T, 2I], gate first
//   a  = silu(gate) * up                         f32, not rounded
//   quantize_rows(a, inv_smooth_down)            likewise
//   out = quant_matmul, rounded to `round`
// in one call that equals that chain bit for bit. No router weight is applied: combining is
// moe_combine's.
//
// tensor          | shape          | dtype       | layout
// x               | [T, D]         | f32 or bf16 | row stride
// counts          | [E]            | i32         | rows of each expert
// up              | [E] of [2I, D] |             | quant_matmul/quant_weights.h
// down            | [E] of [D, I]  |             | likewise
// inv_smooth_up   | [E, D]         | f32         | optional, multiplied first; contiguous
// inv_smooth_down | [E, I]         | f32         | likewise
// out             | [T, D]         | f32         | row stride; values of the dtype of `round`
// Batch-, thread-invariant; every ISA gives the same bits.
// Errors: as the pieces; shapes of up and down that disagree.
#pragma once

#include <cstdint>
#include <span>

#include "ops/quant_matmul/quant_matmul.h"
#include "ops/quantize_rows/quantize_rows.h"

namespace sluice {

struct QuantExpertsArgs {
  ConstMatrixF32 x;  // or
  MatrixView<const bf16> x_bf16;
  std::span<const int32_t> counts;
  std::span<const QuantWeights*const> up, down;
  const float* inv_smooth_up = nullptr;
  const float* inv_smooth_down = nullptr;
  bool group_scales = false;  // of x and a: one for every group of the weights, not every row
  RoundTo round = RoundTo::kBF16;
  MatrixF32 out;
};
struct QuantExpertsShape {
  int64_t max_rows = 0, experts = 0, d = 0, width = 0;
  int64_t up_group = 0, down_group = 0;  // 0: per channel
  QuantCodes up = QuantCodes::kInt8, down = QuantCodes::kInt8;
  bool group_scales = false;
};
size_t quant_experts_workspace_bytes(const QuantExpertsShape& shape);
Status quant_experts(const ExecContext& context, const QuantExpertsArgs& args, Workspace workspace);

}  // namespace sluice
