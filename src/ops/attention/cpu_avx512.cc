#include "ops/attention/cpu.h"
#include "simd/avx512.h"

namespace sluice {

void attention_f32_avx512(const AttentionShape& shape, const AttentionTask& task) {
  simd::attention_task<simd::Avx512, float>(shape, task);
}
void attention_bf16_avx512(const AttentionShape& shape, const AttentionTask& task) {
  simd::attention_task<simd::Avx512, uint16_t>(shape, task);
}

}  // namespace sluice
