#include "ops/moe_sort/cuda_body.h"

namespace sluice {

bool moe_sort_i32_cuda_host(const MoeSortTask& task) {
  cuda::sort_with(task, [](int64_t blocks, const auto& body, size_t shared_bytes) {
    run_on_host(blocks, body, shared_bytes);
  });
  return true;
}

}  // namespace sluice
