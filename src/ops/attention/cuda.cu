#include "device/cuda/launch.cuh"
#include "ops/attention/cuda_body.h"

namespace sluice {
namespace {

template <class T>
void run(const AttentionShape& shape, const AttentionTask& task) {
  if (task.phase == AttentionTask::Phase::kMerge) {
    const AttentionMergeBody body{shape, task};
    return launch(shape.stream, "attention", body.blocks(), body);
  }
  const AttentionBody<T> body{shape, task};
  launch(shape.stream, "attention", body.blocks(), body, body.shared_bytes());
}

}  // namespace

void attention_f32_cuda(const AttentionShape& shape, const AttentionTask& task) {
  run<float>(shape, task);
}
void attention_bf16_cuda(const AttentionShape& shape, const AttentionTask& task) {
  run<bf16>(shape, task);
}

}  // namespace sluice
