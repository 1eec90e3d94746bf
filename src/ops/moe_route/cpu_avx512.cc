#include "ops/moe_route/cpu.h"
#include "simd/avx512.h"

namespace sluice {

int64_t moe_route_f32_avx512(const MoeRouteTask& task) {
  return simd::moe_route<simd::Avx512>(task);
}

}  // namespace sluice
