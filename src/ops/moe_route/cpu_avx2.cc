#include "ops/moe_route/cpu.h"
#include "simd/avx2.h"

namespace sluice {

int64_t moe_route_f32_avx2(const MoeRouteTask& task) {
  return simd::moe_route<simd::Avx2>(task);
}

}  // namespace sluice
