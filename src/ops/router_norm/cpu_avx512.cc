#include "ops/router_norm/cpu.h"
#include "simd/avx512.h"

namespace sluice {

void router_norm_f32_avx512(const RouterNormRows& rows) {
  simd::router_norm<simd::Avx512>(rows);
}

}  // namespace sluice
