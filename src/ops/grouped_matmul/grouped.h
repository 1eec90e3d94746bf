// The parts of grouped_matmul that moe_experts puts together in its own way.
#pragma once

#include "ops/grouped_matmul/grouped_matmul.h"
#include "ops/matmul/panels.h"

namespace sluice {

// A checked call: which experts have rows, and what runs them.
struct GroupedPlan {
  GroupedMatmulArgs args;
  std::span<const int32_t> active;
  const PanelKernel* kernel = nullptr;
  Isa isa = Isa::kReference;  // the kernel's, which may be less than the context's
  PanelEpilogue* epilogue = nullptr;
  float* prepared = nullptr;  // prepared_floats(starts[E], K), set by the caller
  // Optional: room where each row of x is rounded once, however many slots it has.
  Workspace rounded;
};

// Checks args and lists the experts that have rows in `active`, which has room for starts[E].
Result<GroupedPlan> plan_grouped(const ExecContext& context, const GroupedMatmulArgs& args,
                                 int32_t* active);
// The two steps: x into plan.prepared, then every product with its epilogue.
void prepare_grouped(const ExecContext& context, const GroupedPlan& plan);
void multiply_grouped(const ExecContext& context, const GroupedPlan& plan);

// Their pieces, for who goes expert by expert. The product of one expert, all its rows and panels:
PanelProduct expert_product(const GroupedPlan& plan, int64_t e);
// All rows of x in order, rounded once for all their slots into plan.rounded; false where that does
// not pay or fit.
bool round_once(const ExecContext& context, const GroupedPlan& plan, PanelProduct* all);
// A product's panels on the calling worker, in ranges of what the kernel wants at a time.
void multiply_panels(const GroupedPlan& plan, PanelProduct product);

// CUDA: all of it in one go, for at most `slots` slots; without args.source slot s takes row s.
// Ariths of integers quantise their rows into `prepared`, of prepared_floats(slots, K); else it may
// be null.
Status launch_grouped(const ExecContext& context, const GroupedMatmulArgs& args, int64_t slots,
                      float* prepared);

}  // namespace sluice
