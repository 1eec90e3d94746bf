#include "ops/moe_route/cpu.h"
#include "simd/avx512.h"

namespace sluice {

using simd::Avx512;

RouteCounts moe_route_f32_avx512(const MoeRouteTask& task) {
  return simd::moe_route<Avx512, simd::RouteF32<Avx512>>(task);
}
RouteCounts moe_route_bf16_avx512(const MoeRouteTask& task) {
  return simd::moe_route<Avx512, simd::RouteBf16<Avx512>>(task);
}
RouteCounts moe_route_f16_avx512(const MoeRouteTask& task) {
  return simd::moe_route<Avx512, simd::RouteF16<Avx512>>(task);
}

}  // namespace sluice
