#include "ops/moe_experts/cpu.h"
#include "simd/avx512.h"

namespace sluice {

void moe_experts_f32_avx512(const PanelTile& tile) {
  simd::prepared_glu<simd::Avx512, Arith::kF32Fma>(tile);
}
void moe_experts_bf16_avx512(const PanelTile& tile) {
  simd::prepared_glu<simd::Avx512, Arith::kBf16Tile>(tile);
}
void moe_experts_bf16_dot_avx512(const PanelTile& tile) {
  simd::prepared_glu<simd::Avx512, Arith::kBf16Dot>(tile);
}

}  // namespace sluice
