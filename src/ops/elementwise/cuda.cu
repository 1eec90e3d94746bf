#include "device/cuda/launch.cuh"
#include "ops/elementwise/cuda_body.h"

namespace sluice {

void elementwise_f32_cuda(const ElementwiseTask& a) {
  launch(a.stream, "elementwise", ElementwiseBody::blocks(a), ElementwiseBody{a});
}

}  // namespace sluice
