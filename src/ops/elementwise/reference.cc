// Scalar truth: the functions of simd/scalar.h, one element at a time.
#include "ops/elementwise/activate.h"
#include "ops/elementwise/kernels.h"

namespace sluice {
void elementwise_f32_reference(const ElementwiseTask& task) {
  for (int64_t r = 0; r < task.rows; ++r) {
    const float* a = task.a + r * task.a_stride;
    const float* b = task.b + r * task.b_stride;
    float* out = task.out + r * task.out_stride;
    for (int64_t i = 0; i < task.cols; ++i) {
      switch (task.step) {
        case ElementwiseStep::kGlu:
          out[i] = activate(task.activation, a[i], b[i]);
          break;
        case ElementwiseStep::kAdd:
          out[i] = out[i] + b[i];
          break;
        case ElementwiseStep::kScale:
          out[i] = out[i] * task.s;
          break;
        case ElementwiseStep::kSoftcap:
          out[i] = task.s * scalar::tanh(out[i] / task.s);
          break;
      }
    }
  }
}

}  // namespace sluice
