#include "ops/moe_combine/cpu.h"
#include "simd/avx512.h"

namespace sluice {

void moe_combine_f32_avx512(const MoeCombineTask& task) {
  simd::moe_combine<simd::Avx512>(task);
}

}  // namespace sluice
