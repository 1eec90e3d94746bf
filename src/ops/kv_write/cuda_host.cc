#include "ops/kv_write/cuda_body.h"

namespace sluice {

void kv_write_f32_cuda_host(const KvWriteRows& a) {
  run_on_host(KvWriteBody<float>::blocks(a), KvWriteBody<float>{a});
}
void kv_write_bf16_cuda_host(const KvWriteRows& a) {
  run_on_host(KvWriteBody<bf16>::blocks(a), KvWriteBody<bf16>{a});
}

}  // namespace sluice
