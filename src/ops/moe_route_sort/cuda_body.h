// Routing and sorting in one launch of one block: moe_route's warps take the tokens in turns, then
// the block sorts what they chose.
#pragma once

#include "ops/moe_route/cuda_body.h"
#include "ops/moe_route_sort/kernels.h"
#include "ops/moe_sort/cuda_body.h"

namespace sluice::cuda {

template <class T>
struct RouteSortBody {
  static constexpr int kThreads = SortBody::kThreads;
  static constexpr bool kAlone = true;
  MoeRouteTask routing;
  MoeSortTask sort;
  int64_t warps;

  RouteSortBody(const MoeRouteTask& r, const MoeSortTask& s)
      : routing(r), sort(s), warps(route_warps(r, kThreads / kWarp)) {}
  size_t shared_bytes() const {
    const auto rows = static_cast<size_t>(warps * route_words(routing)) * 4;
    const size_t pairs = SortBody::shared_bytes(sort);
    return rows > pairs ? rows : pairs;
  }

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    RouteWarps<T, Block> rows(block, routing, warps);
    for (int64_t t = routing.begin; t < routing.end; t += warps) rows.route(t);
    SortBody{sort}(block);
  }
};

}  // namespace sluice::cuda
