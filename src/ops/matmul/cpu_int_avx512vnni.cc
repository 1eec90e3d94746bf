#include "ops/matmul/cpu_int512.h"
#include "ops/matmul/kernels.h"
#include "simd/avx512vnni.h"

namespace sluice {

using W = simd::Int512<simd::Avx512Vnni>;
const PanelKernel matmul_int8_int4_avx512vnni = simd::kIntKernel<W, WeightFormat::kInt4>;
const PanelKernel matmul_int16_int8_avx512vnni = simd::kIntKernel<W, WeightFormat::kInt8>;

}  // namespace sluice
