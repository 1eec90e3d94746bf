#include "ops/rms_norm/kernels.h"
#include "ops/rms_norm/row.h"

namespace sluice {

void rms_norm_f32_reference(const RmsNormRows& a) {
  for (int64_t t = 0; t < a.rows; ++t) {
    const float* x = a.x + t * a.x_stride;
    float* residual = a.residual + t * a.residual_stride;
    float* out = a.out + t * a.out_stride;
    if (a.residual == nullptr) {
      scalar::rms_norm_row(x, a.weight, a.eps, a.d, out);
    } else if (a.out != nullptr) {
      for (int64_t i = 0; i < a.d; ++i) residual[i] = residual[i] + x[i];
      scalar::rms_norm_row(residual, a.weight, a.eps, a.d, out);
    } else {
      scalar::Sum32 sum;
      for (int64_t i = 0; i < a.d; ++i) sum.add_product(i, x[i], x[i]);
      const float r = scalar::rms_factor(sum.total(), a.d, a.eps);
      for (int64_t i = 0; i < a.d; ++i) {
        const float y = a.weight != nullptr ? (x[i] * r) * a.weight[i] : x[i] * r;
        residual[i] = (residual[i] + y) * a.scale;
      }
    }
  }
}

}  // namespace sluice
