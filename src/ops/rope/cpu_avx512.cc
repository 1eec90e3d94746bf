#include "ops/rope/cpu.h"
#include "simd/avx512.h"

namespace sluice {

void rope_f32_avx512(const RopeRows& rows) {
  simd::rope_rows<simd::Avx512>(rows);
}

}  // namespace sluice
