// Scalar truth: the weighted sum of sum.h, then what follows it.
#include "ops/moe_combine/kernels.h"
#include "ops/moe_combine/sum.h"
#include "ops/rms_norm/row.h"

namespace sluice {
namespace {

void branches(const MoeCombineTask& task, int64_t t, const float* routed) {
  float* branch = task.branch + t * task.branch_stride;
  float* residual = task.residual + t * task.residual_stride;
  scalar::rms_norm_row(branch, task.branch_weight, task.eps, task.d, branch);
  for (int64_t d = 0; d < task.d; ++d) branch[d] = branch[d] + routed[d];
  scalar::rms_norm_row(branch, task.post_weight, task.eps, task.d, branch);
  for (int64_t d = 0; d < task.d; ++d) residual[d] = (residual[d] + branch[d]) * task.scale;
}

}  // namespace

void moe_combine_f32_reference(const MoeCombineTask& task) {
  for (int64_t t = task.begin; t < task.end; ++t) {
    float* out = task.out + t * task.out_stride;
    const bool norms = task.then != CombineThen::kStore && task.then != CombineThen::kResidualAdd;
    for (int64_t d = 0; d < task.d; ++d) {
      const float c = combined(task, t, d);
      if (task.then == CombineThen::kResidualAdd) {
        out[d] = out[d] + c;
      } else if (task.then == CombineThen::kResidualThenNorm) {
        float& r = task.residual[t * task.residual_stride + d];
        out[d] = r = r + c;
      } else {
        out[d] = c;
      }
    }
    if (norms) scalar::rms_norm_row(out, task.norm_weight, task.eps, task.d, out);
    if (task.then == CombineThen::kBranches) branches(task, t, out);
  }
}

}  // namespace sluice
