// elementwise's CUDA kernel: one block per run of kColumns elements of a row.
#pragma once

#include "device/block.h"
#include "ops/elementwise/element.h"
#include "tensor/view.h"

namespace sluice {

struct ElementwiseBody {
  static constexpr int kThreads = 256;
  static constexpr int64_t kColumns = 1024;
  ElementwiseTask task;

  SLUICE_HD static int64_t runs(const ElementwiseTask& t) { return ceil_div(t.cols, kColumns); }
  static int64_t blocks(const ElementwiseTask& t) { return t.rows * runs(t); }

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const int64_t row = block.index() / runs(task), begin = block.index() % runs(task) * kColumns;
    const int64_t end = begin + kColumns < task.cols ? begin + kColumns : task.cols;
    if (task.step == ElementwiseStep::kWeigh) {
      const ElementwiseTask one = weighed_row(task, row);
      if (one.rows > 0) columns(block, one, 0, begin, end);
    } else {
      columns(block, task, row, begin, end);
    }
  }

 private:
  template <class Block>
  SLUICE_HD static void columns(Block& block, const ElementwiseTask& task, int64_t row,
                                int64_t begin, int64_t end) {
    const float* a = task.a + row * task.a_stride;
    const float* b = task.b + row * task.b_stride;
    float* out = task.out + row * task.out_stride;
    block.each([&](int t) {
      for (int64_t i = begin + t; i < end; i += kThreads)
        out[i] = elementwise_value(task, a[i], b[i], out[i]);
    });
  }
};

}  // namespace sluice
