// A checked call as the kernels take it, for moe_route_sort.
#pragma once

#include "ops/moe_route/kernels.h"
#include "ops/moe_route/moe_route.h"

namespace sluice {

// The first key of kernels.inc's rows; empty: no such row.
std::string_view moe_route_input_name(DType dtype);
// All rows of the logits, live or not; stats are bound where the op is not on the host.
Result<MoeRouteTask> bind_moe_route(const ExecContext& context, const MoeRouteArgs& args);

}  // namespace sluice
