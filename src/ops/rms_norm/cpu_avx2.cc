#include "ops/rms_norm/cpu.h"
#include "simd/avx2.h"

namespace sluice {

void rms_norm_f32_avx2(const RmsNormRows& rows) {
  simd::rms_norm_rows<simd::Avx2>(rows);
}

}  // namespace sluice
