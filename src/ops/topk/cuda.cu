#include "device/cuda/launch.cuh"
#include "ops/topk/cuda_body.h"

namespace sluice {

void topk_f32_cuda(const TopkRows& rows) {
  const TopkBody body{rows};
  launch(rows.stream, "topk", body.blocks(), body, body.shared_bytes());
}

}  // namespace sluice
