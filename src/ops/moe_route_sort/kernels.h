// The rows of kernels.inc: routing and sorting in one launch, for at most kSortOneLaunchPairs
// pairs. Where there is no row moe_route_sort.cc calls the pieces.
#pragma once

#include <span>

#include "ops/moe_route/kernels.h"
#include "ops/moe_sort/kernels.h"

namespace sluice {

using MoeRouteSortKernel = void(const MoeRouteTask& route, const MoeSortTask& sort);
std::span<const Kernel<MoeRouteSortKernel>> moe_route_sort_kernels();

#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) MoeRouteSortKernel name;
#include "ops/moe_route_sort/kernels.inc"
#undef SLUICE_KERNEL

}  // namespace sluice
