// Scalar truth: the weighted sum of sum.h, then what follows it.
#include "ops/moe_combine/kernels.h"
#include "ops/moe_combine/sum.h"
#include "ops/rms_norm/row.h"

namespace sluice {
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
