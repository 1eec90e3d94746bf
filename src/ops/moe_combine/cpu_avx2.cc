#include "ops/moe_combine/cpu.h"
#include "simd/avx2.h"

namespace sluice {

void moe_combine_f32_avx2(const MoeCombineTask& task) {
  simd::moe_combine<simd::Avx2>(task);
}

}  // namespace sluice
