#include "ops/moe_experts/cpu.h"
#include "simd/amx_vector.h"

namespace sluice {

void moe_experts_bf16_amx(const PanelTile& tile) {
  simd::row_tiles_glu<simd::Amx>(tile);
}

}  // namespace sluice
