#include "ops/router_norm/cpu.h"
#include "simd/avx2.h"

namespace sluice {

void router_norm_f32_avx2(const RouterNormRows& rows) {
  simd::router_norm<simd::Avx2>(rows);
}

}  // namespace sluice
