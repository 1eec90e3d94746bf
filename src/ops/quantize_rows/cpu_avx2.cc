#include "ops/quantize_rows/cpu.h"
#include "simd/avx2.h"

namespace sluice {

void quantize_rows_f32_avx2(const QuantizeRowsTask& task) {
  simd::quantize_rows<simd::Avx2, float>(task);
}
void quantize_rows_bf16_avx2(const QuantizeRowsTask& task) {
  simd::quantize_rows<simd::Avx2, uint16_t>(task);
}

}  // namespace sluice
