#include "base/fp.h"
#include "ops/rms_norm/row.h"
#include "ops/router_norm/kernels.h"

namespace sluice {

void router_norm_f32_reference(const RouterNormRows& a) {
  const auto rounded = [&a](float v) { return a.round ? round_to_bf16(v) : v; };
  for (int64_t t = 0; t < a.rows; ++t) {
    const float* x = a.x + t * a.x_stride;
    float* out = a.out + t * a.out_stride;
    scalar::Sum32 sum;
    for (int64_t i = 0; i < a.d; ++i) sum.add_product(i, rounded(x[i]), rounded(x[i]));
    const float r = scalar::rms_factor(sum.total(), a.d, a.eps);
    for (int64_t i = 0; i < a.d; ++i)
      out[i] = rounded(rounded(rounded(rounded(x[i]) * r) * a.scale[i]) * a.root);
  }
}

}  // namespace sluice
