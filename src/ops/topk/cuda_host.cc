#include "ops/topk/cuda_body.h"

namespace sluice {

void topk_f32_cuda_host(const TopkRows& rows) {
  const TopkBody body{rows};
  run_on_host(body.blocks(), body, body.shared_bytes());
}

}  // namespace sluice
