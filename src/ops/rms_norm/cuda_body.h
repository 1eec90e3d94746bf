// rms_norm's CUDA kernel: one warp per row. Lane j holds partial j of the row's sum of 32
// interleaved partials, so the tree of simd/scalar.h is the warp's own.
#pragma once

#include "device/block.h"
#include "ops/rms_norm/kernels.h"
#include "ops/rms_norm/row.h"
#include "tensor/view.h"

namespace sluice {

struct RmsNormBody {
  static constexpr int kThreads = 256;
  static constexpr int kRows = kThreads / kWarp;  // of one block
  RmsNormRows a;

  static int64_t blocks(const RmsNormRows& a) { return ceil_div(a.rows, kRows); }

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    typename Block::template PerThread<float> sum(block);
    block.each([&](int t) {
      const int64_t row = block.index() * kRows + t / kWarp;
      if (row >= a.rows) return;
      const float* x = a.x + row * a.x_stride;
      float* residual = a.residual + row * a.residual_stride;
      float partial = 0;
      for (int64_t i = t % kWarp; i < a.d; i += kWarp) {
        float v = x[i];
        if (a.residual != nullptr && a.out != nullptr) v = residual[i] = residual[i] + v;
        partial = scalar::fma(v, v, partial);
      }
      sum[t] = partial;
    });
    block.warp_sum(sum);
    block.each([&](int t) {
      const int64_t row = block.index() * kRows + t / kWarp;
      if (row >= a.rows) return;
      const float r = scalar::rms_factor(sum[t], a.d, a.eps);
      for (int64_t i = t % kWarp; i < a.d; i += kWarp) write(row, i, r);
    });
  }

 private:
  SLUICE_HD void write(int64_t row, int64_t i, float r) const {
    float* residual = a.residual + row * a.residual_stride;
    const float* source =
        a.residual != nullptr && a.out != nullptr ? residual : a.x + row * a.x_stride;
    const float y = a.weight != nullptr ? (source[i] * r) * a.weight[i] : source[i] * r;
    if (a.out != nullptr)
      a.out[row * a.out_stride + i] = y;
    else
      residual[i] = (residual[i] + y) * a.scale;
  }
};

}  // namespace sluice
