#include "ops/attention/cpu.h"
#include "simd/avx2.h"

namespace sluice {

void attention_f32_avx2(const AttentionShape& shape, const AttentionTask& task) {
  simd::attention_task<simd::Avx2, float>(shape, task);
}
void attention_bf16_avx2(const AttentionShape& shape, const AttentionTask& task) {
  simd::attention_task<simd::Avx2, uint16_t>(shape, task);
}

}  // namespace sluice
