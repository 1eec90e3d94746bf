#include "ops/topk/cpu.h"
#include "simd/avx2.h"

namespace sluice {

void topk_f32_avx2(const TopkRows& rows) {
  select_topk(&simd::topk_scan<simd::Avx2>, rows);
}

}  // namespace sluice
