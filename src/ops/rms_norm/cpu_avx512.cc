#include "ops/rms_norm/cpu.h"
#include "simd/avx512.h"

namespace sluice {

void rms_norm_f32_avx512(const RmsNormRows& rows) {
  simd::rms_norm_rows<simd::Avx512>(rows);
}

}  // namespace sluice
