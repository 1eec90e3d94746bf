#include "ops/kv_write/cpu.h"
#include "simd/avx512.h"

namespace sluice {

void kv_write_f32_avx512(const KvWriteRows& rows) {
  simd::kv_write_rows<simd::Avx512, float>(rows);
}
void kv_write_bf16_avx512(const KvWriteRows& rows) {
  simd::kv_write_rows<simd::Avx512, uint16_t>(rows);
}

}  // namespace sluice
