#include "ops/elementwise/cpu.h"
#include "simd/avx2.h"

namespace sluice {

void elementwise_f32_avx2(const ElementwiseTask& task) {
  simd::elementwise<simd::Avx2>(task);
}

}  // namespace sluice
