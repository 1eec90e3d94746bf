#include "device/cuda/launch.cuh"
#include "ops/moe_combine/cuda_body.h"

namespace sluice {

void moe_combine_f32_cuda(const MoeCombineTask& task) {
  launch(task.stream, "moe_combine", task.end - task.begin, MoeCombineBody{task}, sizeof(float));
}

}  // namespace sluice
