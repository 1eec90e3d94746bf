// Both products of one expert after another, by one worker each: its rows, prepared, and its hidden
// rows stay in that worker's cache, and nobody waits between the products.
#pragma once

#include "ops/grouped_matmul/grouped.h"

namespace sluice {

// Runs both plans and returns true, or leaves everything as it was where going in phases is better:
// few experts for each worker, or one that has most rows. `place` is scratch, as much as all hidden
// rows take; the bits are the same either way.
bool multiply_by_expert(const ExecContext& context, GroupedPlan& up, const GroupedPlan& down,
                        Workspace place);

}  // namespace sluice
