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
    block.each([&](int t) {
      for (int64_t d = t; d < task.d; d += kThreads) {
        const float c = combined(task, token, d);
        out[d] = task.then == CombineThen::kResidualAdd ? out[d] + c : c;
      }
    });
    if (task.then != CombineThen::kRmsNorm) return;
    typename Block::template PerThread<float> sum(block);
    auto* factor = block.template shared<float>();
    block.each([&](int t) {
      if (t >= kWarp) return;
      float partial = 0;
      for (int64_t d = t; d < task.d; d += kWarp) partial = scalar::fma(out[d], out[d], partial);
      sum[t] = partial;
    });
    block.warp_sum(sum);
    block.each([&](int t) {
      if (t == 0) *factor = scalar::rms_factor(sum[t], task.d, task.eps);
    });
    block.each([&](int t) {
      for (int64_t d = t; d < task.d; d += kThreads)
        out[d] = scalar::rms_norm_value(out[d], *factor, task.norm_weight, d);
    });
  }
};

}  // namespace sluice
