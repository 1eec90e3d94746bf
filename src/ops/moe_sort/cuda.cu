#include "device/cuda/launch.cuh"
#include "ops/moe_sort/cuda_body.h"

namespace sluice {

bool moe_sort_i32_cuda(const MoeSortTask& task) {
  cuda::sort_with(task, [&](int64_t blocks, const auto& body, size_t shared_bytes) {
    launch(task.stream, "moe_sort", blocks, body, shared_bytes);
  });
  return true;
}

}  // namespace sluice
