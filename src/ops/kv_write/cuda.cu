#include "device/cuda/launch.cuh"
#include "ops/kv_write/cuda_body.h"

namespace sluice {

void kv_write_f32_cuda(const KvWriteRows& a) {
  launch(a.stream, "kv_write", KvWriteBody<float>::blocks(a), KvWriteBody<float>{a});
}
void kv_write_bf16_cuda(const KvWriteRows& a) {
  launch(a.stream, "kv_write", KvWriteBody<bf16>::blocks(a), KvWriteBody<bf16>{a});
}

}  // namespace sluice
