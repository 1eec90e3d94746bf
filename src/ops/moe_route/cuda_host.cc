#include "ops/moe_route/cuda_body.h"

namespace sluice {
namespace {

template <class T>
RouteCounts route_rows(const MoeRouteTask& task) {
  const cuda::RouteBody<T> body(task);
  run_on_host(body.blocks(), body, body.shared_bytes());
  return {};
}

}  // namespace

RouteCounts moe_route_f32_cuda_host(const MoeRouteTask& task) {
  return route_rows<float>(task);
}
RouteCounts moe_route_bf16_cuda_host(const MoeRouteTask& task) {
  return route_rows<bf16>(task);
}
RouteCounts moe_route_f16_cuda_host(const MoeRouteTask& task) {
  return route_rows<cuda::F16>(task);
}

}  // namespace sluice
