#include "device/cuda/launch.cuh"
#include "ops/rope/cuda_body.h"

namespace sluice {

void rope_angles_f64_cuda(const RopeRows& a) {
  for (int64_t first = 0; first < a.half; first += RopeAnglesBody::kFrequencies) {
    const RopeAnglesBody body(a, first);
    launch(a.stream, "rope_angles", body.blocks(), body);
  }
}

void rope_f32_cuda(const RopeRows& a) {
  launch(a.stream, "rope", RopeBody::blocks(a), RopeBody{a});
}

}  // namespace sluice
