#include "ops/rope/cuda_body.h"

namespace sluice {

void rope_angles_f64_cuda_host(const RopeRows& a) {
  for (int64_t first = 0; first < a.half; first += RopeAnglesBody::kFrequencies) {
    const RopeAnglesBody body(a, first);
    run_on_host(body.blocks(), body);
  }
}

void rope_f32_cuda_host(const RopeRows& a) {
  run_on_host(RopeBody::blocks(a), RopeBody{a});
}

}  // namespace sluice
