#include "ops/moe_route_sort/moe_route_sort.h"

#include "base/float_env.h"
#include "ops/kernel_table.h"
#include "ops/moe_route/bind.h"
#include "ops/moe_route_sort/kernels.h"
#include "ops/moe_sort/bind.h"

namespace sluice {
namespace {

constexpr Kernel<MoeRouteSortKernel> kKernels[] = {
#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) \
  {Isa::isa, #name, #in, #weight, #arith, flags, &name},
#include "ops/moe_route_sort/kernels.inc"
#undef SLUICE_KERNEL
};

Status check(const MoeRouteSortArgs& a) {
  if (!a.sort.ids.empty() || !a.sort.weights.empty() || a.sort.k != 0 ||
      a.sort.live_tokens != nullptr)
    return invalid_argument(
        "moe_route_sort: sort: expected ids, weights, K and live_tokens to be the route's, got "
        "others");
  if (a.route.out_stride != 0)
    return invalid_argument("moe_route_sort: route: row stride: expected 0 (K+S), got {}",
                            a.route.out_stride);
  return ok_status();
}

// The sort of what the route chooses.
MoeSortArgs sort_of(const MoeRouteSortArgs& args) {
  MoeSortArgs sort = args.sort;
  sort.ids = args.route.ids;
  sort.k = args.route.k + args.route.rule.shared;
  sort.live_tokens = args.route.live_tokens;
  if (!sort.sorted_weights.empty()) sort.weights = args.route.weights;
  return sort;
}

// A device's two ops, in one launch where a row and the pairs allow it.
Result<bool> launch(const ExecContext& context, const MoeRouteSortArgs& args, bool fused) {
  const auto* kernel = select_kernel(moe_route_sort_kernels(), context.isa,
                                     moe_route_input_name(args.route.logits.dtype), "none", "f32");
  SLUICE_ASSIGN_OR_RETURN(const MoeRouteTask route, bind_moe_route(context, args.route));
  SLUICE_ASSIGN_OR_RETURN(const MoeSortTask sort, bind_moe_sort(context, sort_of(args)));
  if (!fused || kernel == nullptr || sort.tokens * sort.k > kSortOneLaunchPairs) {
    SLUICE_RETURN_IF_ERROR(moe_route(context, args.route));
    SLUICE_RETURN_IF_ERROR(moe_sort(context, sort_of(args)));
    return false;
  }
  const ScopedFloatEnv env;
  kernel->run(route, sort);
  return true;
}

}  // namespace

std::span<const Kernel<MoeRouteSortKernel>> moe_route_sort_kernels() {
  return kKernels;
}

int64_t moe_route_sort_budget(int64_t experts) {
  return experts < 1 ? 0 : kRouteSortLogits / experts;
}

Status moe_route_sort(const ExecContext& context, const MoeRouteSortArgs& args) {
  SLUICE_RETURN_IF_ERROR(check(args));
  const int64_t budget =
      args.token_budget < 0 ? moe_route_sort_budget(args.route.logits.cols) : args.token_budget;
  bool fused = args.route.logits.rows <= budget;
  if (is_cuda(context.isa)) {
    SLUICE_ASSIGN_OR_RETURN(fused, launch(context, args, fused));
  } else {
    ExecContext here = context;
    if (fused) here.pool = nullptr;
    SLUICE_RETURN_IF_ERROR(moe_route(here, args.route));
    SLUICE_RETURN_IF_ERROR(moe_sort(here, sort_of(args)));
  }
  if (args.stats != nullptr) ++(fused ? args.stats->fused_calls : args.stats->chained_calls);
  return ok_status();
}

}  // namespace sluice
