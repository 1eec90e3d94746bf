#include "ops/topk/cpu.h"
#include "simd/avx2.h"

namespace sluice {

int64_t topk_f32_avx2(const float* x, int64_t begin, int64_t end, TopkBuffer& buffer) {
  return simd::topk_scan<simd::Avx2>(x, begin, end, buffer);
}

}  // namespace sluice
