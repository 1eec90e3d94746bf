// router_norm's CUDA kernel: one warp per row, as rms_norm's.
#pragma once

#include "base/fp.h"
#include "device/block.h"
#include "ops/rms_norm/row.h"
#include "ops/router_norm/kernels.h"
#include "tensor/view.h"

namespace sluice {

struct RouterNormBody {
  static constexpr int kThreads = 256;
  static constexpr int kRows = kThreads / kWarp;  // of one block
  RouterNormRows a;

  static int64_t blocks(const RouterNormRows& a) { return ceil_div(a.rows, kRows); }

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    typename Block::template PerThread<float> sum(block);
    block.each([&](int t) {
      const int64_t row = block.index() * kRows + t / kWarp;
      if (row >= a.rows) return;
      const float* x = a.x + row * a.x_stride;
      float partial = 0;
      for (int64_t i = t % kWarp; i < a.d; i += kWarp) {
        const float v = rounded(x[i]);
        partial = scalar::fma(v, v, partial);
      }
      sum[t] = partial;
    });
    block.warp_sum(sum);
    block.each([&](int t) {
      const int64_t row = block.index() * kRows + t / kWarp;
      if (row >= a.rows) return;
      const float* x = a.x + row * a.x_stride;
      const float r = scalar::rms_factor(sum[t], a.d, a.eps);
      float* out = a.out + row * a.out_stride;
      for (int64_t i = t % kWarp; i < a.d; i += kWarp)
        out[i] = rounded(rounded(rounded(rounded(x[i]) * r) * a.scale[i]) * a.root);
    });
  }

 private:
  SLUICE_HD float rounded(float v) const { return a.round ? round_to_bf16(v) : v; }
};

}  // namespace sluice
