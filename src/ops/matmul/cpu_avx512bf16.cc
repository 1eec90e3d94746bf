#include "ops/matmul/cpu.h"
#include "ops/matmul/kernels.h"
#include "simd/avx512bf16.h"

namespace sluice {

using V = simd::Avx512Bf16;
using enum WeightFormat;
const PanelKernel matmul_bf16_bf16_dot_avx512bf16 = simd::kPanelKernel<V, kBF16, Arith::kBf16Dot>;
const PanelKernel matmul_bf16_mxfp4_dot_avx512bf16 = simd::kPanelKernel<V, kMXFP4, Arith::kBf16Dot>;

}  // namespace sluice
