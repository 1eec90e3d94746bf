// router_norm's CUDA kernel: one warp per row, as rms_norm's.
#pragma once

#include "base/fp.h"
#include "ops/rms_norm/norm_warps.h"
#include "ops/router_norm/kernels.h"

namespace sluice {

struct RouterNormBody {
  static constexpr int kThreads = NormWarps::kThreads;
  RouterNormRows a;

  static int64_t blocks(const RouterNormRows& a) { return NormWarps::blocks(a.rows); }

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const auto read = [&](int64_t row, int64_t i) { return rounded(a.x[row * a.x_stride + i]); };
    NormWarps::run(block, a.rows, a.d, a.eps, read, [&](int64_t row, int64_t i, float r) {
      a.out[row * a.out_stride + i] =
          rounded(rounded(rounded(read(row, i) * r) * a.scale[i]) * a.root);
    });
  }

 private:
  SLUICE_HD float rounded(float v) const { return a.round ? round_to_bf16(v) : v; }
};

}  // namespace sluice
