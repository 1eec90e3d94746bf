#include "device/cpu/probe.h"
#include "device/cpu/probe_kernels.h"
#include "simd/avx2.h"

namespace sluice {

// Six virtual vectors are twelve of the sixteen registers.
const ProbeKernel probe_avx2 = {simd::probe_sum<simd::Avx2>, simd::probe_fma<simd::Avx2, 6>, 6};

}  // namespace sluice
