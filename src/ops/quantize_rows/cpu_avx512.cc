#include "ops/quantize_rows/cpu.h"
#include "simd/avx512.h"

namespace sluice {

void quantize_rows_f32_avx512(const QuantizeRowsTask& task) {
  simd::quantize_rows<simd::Avx512, float>(task);
}
void quantize_rows_bf16_avx512(const QuantizeRowsTask& task) {
  simd::quantize_rows<simd::Avx512, uint16_t>(task);
}

}  // namespace sluice
