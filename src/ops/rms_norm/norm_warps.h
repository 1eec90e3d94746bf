// The frame of CUDA kernels that scale rows by their root mean square: one warp per row. Lane j
// holds partial j of the row's sum of 32 interleaved partials, so the tree of simd/scalar.h is the
// warp's own.
#pragma once

#include "device/block.h"
#include "ops/rms_norm/row.h"
#include "tensor/view.h"

namespace sluice {

struct NormWarps {
  static constexpr int kThreads = 256;
  static constexpr int kRows = kThreads / kWarp;  // of one block

  static int64_t blocks(int64_t rows) { return ceil_div(rows, kRows); }

  // read(row, i) gives the values whose squares are summed, write(row, i, r) takes the row's
  // factor; the thread that reads an element writes it.
  template <class Block, class Read, class Write>
  SLUICE_HD static void run(Block& block, int64_t rows, int64_t d, float eps, const Read& read,
                            const Write& write) {
    typename Block::template PerThread<float> sum(block);
    block.each([&](int t) {
      const int64_t row = block.index() * kRows + t / kWarp;
      if (row >= rows) return;
      float partial = 0;
      for (int64_t i = t % kWarp; i < d; i += kWarp) {
        const float v = read(row, i);
        partial = scalar::fma(v, v, partial);
      }
      sum[t] = partial;
    });
    block.warp_sum(sum);
    block.each([&](int t) {
      const int64_t row = block.index() * kRows + t / kWarp;
      if (row >= rows) return;
      const float r = scalar::rms_factor(sum[t], d, eps);
      for (int64_t i = t % kWarp; i < d; i += kWarp) write(row, i, r);
    });
  }
};

}  // namespace sluice
