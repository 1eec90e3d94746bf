// Scalar truth: the weighted sum, ascending k, then what follows it.
#include <cmath>

#include "ops/moe_combine/kernels.h"
#include "ops/rms_norm/row.h"

namespace sluice {
namespace {

float combined(const MoeCombineTask& task, int64_t t, int64_t d) {
  float acc = 0;
  for (int64_t k = 0; k < task.k; ++k) {
    const int32_t slot = task.inverse[t * task.k + k];
    if (slot >= 0)
      acc = std::fma(task.weights[t * task.k + k], task.y[slot * task.y_stride + d], acc);
  }
  return acc;
}

}  // namespace

void moe_combine_f32_reference(const MoeCombineTask& task) {
  for (int64_t t = task.begin; t < task.end; ++t) {
    float* out = task.out + t * task.out_stride;
    for (int64_t d = 0; d < task.d; ++d) {
      const float c = combined(task, t, d);
      out[d] = task.then == CombineThen::kResidualAdd ? out[d] + c : c;
    }
    if (task.then == CombineThen::kRmsNorm)
      scalar::rms_norm_row(out, task.norm_weight, task.eps, task.d, out);
  }
}

}  // namespace sluice
