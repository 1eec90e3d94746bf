#include "device/cuda/launch.cuh"
#include "ops/router_norm/cuda_body.h"

namespace sluice {

void router_norm_f32_cuda(const RouterNormRows& a) {
  launch(a.stream, "router_norm", RouterNormBody::blocks(a), RouterNormBody{a});
}

}  // namespace sluice
