#include "ops/quant_matmul/cpu_fp8.h"
#include "simd/avx512.h"

namespace sluice {

const QuantKernel quant_matmul_fp8_fp8_avx512 = simd::kFp8Kernel<simd::Avx512>;

}  // namespace sluice
