#include "ops/elementwise/cpu.h"
#include "simd/avx512.h"

namespace sluice {

void elementwise_f32_avx512(const ElementwiseTask& task) {
  simd::elementwise<simd::Avx512>(task);
}

}  // namespace sluice
