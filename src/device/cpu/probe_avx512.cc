#include "device/cpu/probe.h"
#include "device/cpu/probe_kernels.h"
#include "simd/avx512.h"

namespace sluice {

const ProbeKernel probe_avx512 = {simd::probe_sum<simd::Avx512>, simd::probe_fma<simd::Avx512, 16>,
                                  16};

}  // namespace sluice
