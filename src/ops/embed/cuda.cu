#include "device/cuda/launch.cuh"
#include "ops/embed/cuda_body.h"

namespace sluice {

void embed_f32_cuda(const EmbedRows& a) {
  launch(a.stream, "embed", EmbedBody::blocks(a), EmbedBody{a});
}

}  // namespace sluice
