#include "ops/topk/cpu.h"
#include "simd/avx512.h"

namespace sluice {

void topk_f32_avx512(const TopkRows& rows) {
  select_topk(&simd::topk_scan<simd::Avx512>, rows);
}

}  // namespace sluice
