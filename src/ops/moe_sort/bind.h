// A checked call as the kernels take it, for moe_route_sort.
#pragma once

#include "ops/moe_sort/kernels.h"
#include "ops/moe_sort/moe_sort.h"

namespace sluice {

Result<MoeSortTask> bind_moe_sort(const ExecContext& context, const MoeSortArgs& args);

}  // namespace sluice
