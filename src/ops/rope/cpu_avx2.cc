#include "ops/rope/cpu.h"
#include "simd/avx2.h"

namespace sluice {

void rope_f32_avx2(const RopeRows& rows) {
  simd::rope_rows<simd::Avx2>(rows);
}

}  // namespace sluice
