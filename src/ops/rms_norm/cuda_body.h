// rms_norm's CUDA kernel: one warp per row.
#pragma once

#include "ops/rms_norm/kernels.h"
#include "ops/rms_norm/norm_warps.h"

namespace sluice {

struct RmsNormBody {
  static constexpr int kThreads = NormWarps::kThreads;
  RmsNormRows a;

  static int64_t blocks(const RmsNormRows& a) { return NormWarps::blocks(a.rows); }

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    NormWarps::run(
        block, a.rows, a.d, a.eps, [&](int64_t row, int64_t i) { return read(row, i); },
        [&](int64_t row, int64_t i, float r) { write(row, i, r); });
  }

 private:
  SLUICE_HD bool adds_first() const { return a.residual != nullptr && a.out != nullptr; }
  SLUICE_HD float read(int64_t row, int64_t i) const {
    const float x = a.x[row * a.x_stride + i];
    if (!adds_first()) return x;
    float& residual = a.residual[row * a.residual_stride + i];
    return residual = residual + x;
  }
  SLUICE_HD void write(int64_t row, int64_t i, float r) const {
    float* residual = a.residual + row * a.residual_stride;
    const float v = adds_first() ? residual[i] : a.x[row * a.x_stride + i];
    const float y = scalar::rms_norm_value(v, r, a.weight, i);
    if (a.out != nullptr)
      a.out[row * a.out_stride + i] = y;
    else
      residual[i] = (residual[i] + y) * a.scale;
  }
};

}  // namespace sluice
