#include "device/cpu/probe.h"
#include "device/cpu/probe_kernels.h"
#include "simd/avx512vnni.h"

namespace sluice {

using V = simd::Avx512Vnni;
const ProbeKernel probe_avx512vnni = {simd::probe_sum<V>,
                                      simd::probe_fma<V, 16>,
                                      16,
                                      {},
                                      {simd::probe_dot<V>, simd::kDotChains * 128.0}};

}  // namespace sluice
