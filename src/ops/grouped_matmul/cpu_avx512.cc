#include "ops/grouped_matmul/cpu.h"
#include "simd/avx512.h"

namespace sluice {

void grouped_matmul_glu_avx512(const PanelTile& tile) {
  simd::glu_epilogue<simd::Avx512>(tile);
}

}  // namespace sluice
