#include "ops/moe_experts/cpu.h"
#include "simd/avx2.h"

namespace sluice {

void moe_experts_f32_avx2(const PanelTile& tile) {
  simd::prepared_glu<simd::Avx2, Arith::kF32Fma>(tile);
}
void moe_experts_bf16_avx2(const PanelTile& tile) {
  simd::prepared_glu<simd::Avx2, Arith::kBf16Tile>(tile);
}
void moe_experts_bf16_dot_avx2(const PanelTile& tile) {
  simd::prepared_glu<simd::Avx2, Arith::kBf16Dot>(tile);
}

}  // namespace sluice
