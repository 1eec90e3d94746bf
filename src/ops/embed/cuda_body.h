// embed's CUDA kernel: one block per run of kColumns elements of a row.
#pragma once

#include "device/block.h"
#include "ops/embed/element.h"
#include "tensor/view.h"

namespace sluice {

struct EmbedBody {
  static constexpr int kThreads = 256;
  static constexpr int64_t kColumns = 1024;
  EmbedRows a;

  SLUICE_HD static int64_t runs(const EmbedRows& a) { return ceil_div(a.d, kColumns); }
  static int64_t blocks(const EmbedRows& a) { return a.rows * runs(a); }

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const int64_t row = block.index() / runs(a), begin = block.index() % runs(a) * kColumns;
    const int64_t end = begin + kColumns < a.d ? begin + kColumns : a.d;
    const int64_t id = a.ids[row];
    float* out = a.out + row * a.out_stride;
    block.each([&](int t) {
      for (int64_t k = begin + t; k < end; k += kThreads)
        out[k] = embed_element(a, id, k) * a.scale;
    });
  }
};

}  // namespace sluice
