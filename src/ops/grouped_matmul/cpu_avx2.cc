#include "ops/grouped_matmul/cpu.h"
#include "simd/avx2.h"

namespace sluice {

void grouped_matmul_glu_avx2(const PanelTile& tile) {
  simd::glu_epilogue<simd::Avx2>(tile);
}

}  // namespace sluice
