// Scalar truth: the functions of simd/scalar.h, one element at a time.
#include "ops/elementwise/element.h"

namespace sluice {

namespace {

void rows_of(const ElementwiseTask& task) {
  for (int64_t r = 0; r < task.rows; ++r) {
    const float* a = task.a + r * task.a_stride;
    const float* b = task.b + r * task.b_stride;
    float* out = task.out + r * task.out_stride;
    for (int64_t i = 0; i < task.cols; ++i) out[i] = elementwise_value(task, a[i], b[i], out[i]);
  }
}

}  // namespace

void elementwise_f32_reference(const ElementwiseTask& task) {
  if (task.step != ElementwiseStep::kWeigh) return rows_of(task);
  for (int64_t r = 0; r < task.rows; ++r) rows_of(weighed_row(task, r));
}

}  // namespace sluice
