#include "ops/matmul/cpu_a16.h"
#include "ops/matmul/kernels.h"
#include "simd/avx512.h"

namespace sluice {

using V = simd::Avx512;
#define SLUICE_BLOCK_FORMAT(name, format)                        \
  const PanelKernel matmul_f32_##name##_avx512 =                 \
      simd::kA16Kernel<V, WeightFormat::format, Arith::kF32Fma>; \
  const PanelKernel matmul_bf16_##name##_avx512 =                \
      simd::kA16Kernel<V, WeightFormat::format, Arith::kBf16Tile>;
#include "ops/matmul/a16_formats.inc"
#undef SLUICE_BLOCK_FORMAT

}  // namespace sluice
