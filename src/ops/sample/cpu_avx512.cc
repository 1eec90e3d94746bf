#include "ops/sample/cpu.h"
#include "simd/avx512.h"

namespace sluice {

constinit const SampleKernel sample_f32_avx512 = simd::sample_kernel<simd::Avx512>();

}  // namespace sluice
