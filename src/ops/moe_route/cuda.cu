#include "device/cuda/launch.cuh"
#include "ops/moe_route/cuda_body.h"

namespace sluice {
namespace {

template <class T>
RouteCounts route_rows(const MoeRouteTask& task) {
  const cuda::RouteBody<T> body(task);
  launch(task.stream, "moe_route", body.blocks(), body, body.shared_bytes());
  return {};
}

}  // namespace

RouteCounts moe_route_f32_cuda(const MoeRouteTask& task) {
  return route_rows<float>(task);
}
RouteCounts moe_route_bf16_cuda(const MoeRouteTask& task) {
  return route_rows<bf16>(task);
}
RouteCounts moe_route_f16_cuda(const MoeRouteTask& task) {
  return route_rows<cuda::F16>(task);
}

}  // namespace sluice
