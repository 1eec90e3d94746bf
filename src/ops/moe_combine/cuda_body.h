// moe_combine's CUDA kernel: a block per token. The sums of the norm are one warp's, lane j holding
// partial j of the row, so the tree of simd/scalar.h is the warp's own.
#pragma once

#include "device/block.h"
#include "ops/moe_combine/kernels.h"
#include "ops/moe_combine/sum.h"
#include "ops/rms_norm/row.h"

namespace sluice {

struct MoeCombineBody {
  static constexpr int kThreads = 256;
  MoeCombineTask task;

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const int64_t token = task.begin + block.index();
    float* out = task.out + token * task.out_stride;
    float* residual = task.residual + token * task.residual_stride;
    const CombineThen then = task.then;
    block.each([&](int t) {
      for (int64_t d = t; d < task.d; d += kThreads) {
        float c = combined(task, token, d);
        if (then == CombineThen::kResidualThenNorm) c = residual[d] = residual[d] + c;
        out[d] = then == CombineThen::kResidualAdd ? out[d] + c : c;
      }
    });
    if (then == CombineThen::kStore || then == CombineThen::kResidualAdd) return;
    norm(block, out, task.norm_weight, [&](int64_t d, float v) { out[d] = v; });
    if (then != CombineThen::kBranches) return;
    float* branch = task.branch + token * task.branch_stride;
    norm(block, branch, task.branch_weight, [&](int64_t d, float v) { branch[d] = v + out[d]; });
    norm(block, branch, task.post_weight,
         [&](int64_t d, float v) { residual[d] = (residual[d] + v) * task.scale; });
  }

 private:
  // store(d, value) for the values of the normed row.
  template <class Block, class Store>
  SLUICE_HD void norm(Block& block, const float* row, const float* weight, Store store) const {
    typename Block::template PerThread<float> sum(block);
    auto* factor = block.template shared<float>();
    block.each([&](int t) {
      if (t >= kWarp) return;
      float partial = 0;
      for (int64_t d = t; d < task.d; d += kWarp) partial = scalar::fma(row[d], row[d], partial);
      sum[t] = partial;
    });
    block.warp_sum(sum);
    block.each([&](int t) {
      if (t == 0) *factor = scalar::rms_factor(sum[t], task.d, task.eps);
    });
    block.each([&](int t) {
      for (int64_t d = t; d < task.d; d += kThreads)
        store(d, scalar::rms_norm_value(row[d], *factor, weight, d));
    });
  }
};

}  // namespace sluice
