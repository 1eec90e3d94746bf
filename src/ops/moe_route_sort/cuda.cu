#include "device/cuda/launch.cuh"
#include "ops/moe_route_sort/cuda_body.h"

namespace sluice {
namespace {

template <class T>
void run(const MoeRouteTask& routing, const MoeSortTask& sort) {
  const cuda::RouteSortBody<T> body(routing, sort);
  launch(routing.stream, "moe_route_sort", 1, body, body.shared_bytes());
}

}  // namespace

void moe_route_sort_f32_cuda(const MoeRouteTask& routing, const MoeSortTask& sort) {
  run<float>(routing, sort);
}
void moe_route_sort_bf16_cuda(const MoeRouteTask& routing, const MoeSortTask& sort) {
  run<bf16>(routing, sort);
}
void moe_route_sort_f16_cuda(const MoeRouteTask& routing, const MoeSortTask& sort) {
  run<cuda::F16>(routing, sort);
}

}  // namespace sluice
