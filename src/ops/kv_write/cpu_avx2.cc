#include "ops/kv_write/cpu.h"
#include "simd/avx2.h"

namespace sluice {

void kv_write_f32_avx2(const KvWriteRows& rows) {
  simd::kv_write_rows<simd::Avx2, float>(rows);
}
void kv_write_bf16_avx2(const KvWriteRows& rows) {
  simd::kv_write_rows<simd::Avx2, uint16_t>(rows);
}

}  // namespace sluice
