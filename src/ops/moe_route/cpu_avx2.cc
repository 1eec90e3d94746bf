#include "ops/moe_route/cpu.h"
#include "simd/avx2.h"

namespace sluice {

using simd::Avx2;

RouteCounts moe_route_f32_avx2(const MoeRouteTask& task) {
  return simd::moe_route<Avx2, simd::RouteF32<Avx2>>(task);
}
RouteCounts moe_route_bf16_avx2(const MoeRouteTask& task) {
  return simd::moe_route<Avx2, simd::RouteBf16<Avx2>>(task);
}
RouteCounts moe_route_f16_avx2(const MoeRouteTask& task) {
  return simd::moe_route<Avx2, simd::RouteF16<Avx2>>(task);
}

}  // namespace sluice
