// bf16_dot by VDPBF16PS. Not everywhere the faster way to these bits: on a Xeon with AMX, where the
// instruction has half the rate of FMA, N = 16384, K = 2048 took with it and with the rows of
// kAvx512 (milliseconds, 2 threads) 5.2 and 4.4 for 16 rows of bf16 weights, 0.96 and 0.64 for one
// row of MXFP4; bf16_tile by FMA 3.5 and 0.65, by tiles less: so it is no machine's default.
#include "ops/matmul/cpu.h"
#include "ops/matmul/kernels.h"
#include "simd/avx512bf16.h"

namespace sluice {

using V = simd::Avx512Bf16;
using enum WeightFormat;
const PanelKernel matmul_bf16_bf16_dot_avx512bf16 = simd::kPanelKernel<V, kBF16, Arith::kBf16Dot>;
const PanelKernel matmul_bf16_mxfp4_dot_avx512bf16 = simd::kPanelKernel<V, kMXFP4, Arith::kBf16Dot>;

}  // namespace sluice
