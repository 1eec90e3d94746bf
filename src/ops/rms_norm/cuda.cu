#include "device/cuda/launch.cuh"
#include "ops/rms_norm/cuda_body.h"

namespace sluice {

void rms_norm_f32_cuda(const RmsNormRows& a) {
  launch(a.stream, "rms_norm", RmsNormBody::blocks(a), RmsNormBody{a});
}

}  // namespace sluice
