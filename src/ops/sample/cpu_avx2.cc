#include "ops/sample/cpu.h"
#include "simd/avx2.h"

namespace sluice {

constinit const SampleKernel sample_f32_avx2 = simd::sample_kernel<simd::Avx2>();

}  // namespace sluice
