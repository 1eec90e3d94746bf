// The loop around every scalar reference: one dot product per row and column, two panels at a time,
// so that an epilogue finds gate and up together.
#pragma once

#include "ops/matmul/kernels.h"

namespace sluice {

// Row x of K values with column c of a panel, in the order of an arith.
using ReferenceDot = float(const PanelProduct& product, const float* x, const std::byte* panel,
                           int64_t c);

inline void prepare_reference(const PanelProduct&, int64_t, int64_t) {}

template <ReferenceDot* dot>
void multiply_reference(const PanelProduct& product) {
  for (int64_t p0 = product.panel_begin; p0 < product.panel_end; p0 += 2) {
    const int64_t panels = product.panel_end - p0 < 2 ? 1 : 2;
    for (int64_t r = 0; r < product.row_count; ++r) {
      const float* x =
          product.x + (product.rows != nullptr ? product.rows[r] : r) * product.x_stride;
      float acc[32];
      for (int64_t i = 0; i < panels * 16; ++i)
        acc[i] =
            dot(product, x, product.panels + static_cast<size_t>(p0 + i / 16) * product.panel_bytes,
                i % 16);
      product.epilogue({&product, acc, r, 1, p0, panels});
    }
  }
}

template <ReferenceDot* dot>
inline constexpr PanelKernel kReferenceKernel = {prepare_reference, multiply_reference<dot>,
                                                 store_tile_reference};

}  // namespace sluice
