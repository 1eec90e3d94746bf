#include "ops/matmul/cpu.h"
#include "ops/matmul/kernels.h"
#include "simd/avx512.h"

namespace sluice {

using simd::kPanelKernel;
using V = simd::Avx512;
using enum WeightFormat;
using enum Arith;
const PanelKernel matmul_f32_f32_avx512 = kPanelKernel<V, kF32, kF32Fma>;
const PanelKernel matmul_f32_bf16_avx512 = kPanelKernel<V, kBF16, kF32Fma>;
const PanelKernel matmul_f32_mxfp4_avx512 = kPanelKernel<V, kMXFP4, kF32Fma>;
const PanelKernel matmul_f32_fp8_avx512 = kPanelKernel<V, kFP8, kF32Fma>;
const PanelKernel matmul_bf16_fp8_avx512 = kPanelKernel<V, kFP8, kBf16Tile>;
const PanelKernel matmul_bf16_bf16_avx512 = kPanelKernel<V, kBF16, kBf16Tile>;
const PanelKernel matmul_bf16_mxfp4_avx512 = kPanelKernel<V, kMXFP4, kBf16Tile>;
const PanelKernel matmul_bf16_bf16_dot_avx512 = kPanelKernel<V, kBF16, kBf16Dot>;
const PanelKernel matmul_bf16_mxfp4_dot_avx512 = kPanelKernel<V, kMXFP4, kBf16Dot>;

}  // namespace sluice
