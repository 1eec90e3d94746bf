#include "ops/moe_experts/cpu.h"
#include "simd/avx512bf16.h"

namespace sluice {

void moe_experts_bf16_dot_avx512bf16(const PanelTile& tile) {
  simd::prepared_glu<simd::Avx512Bf16, Arith::kBf16Dot>(tile);
}

}  // namespace sluice
