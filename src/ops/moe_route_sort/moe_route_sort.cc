#include "ops/moe_route_sort/moe_route_sort.h"

#include "base/float_env.h"

namespace sluice {
namespace {

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

}  // namespace

int64_t moe_route_sort_budget(int64_t experts) {
  return experts < 1 ? 0 : kRouteSortLogits / experts;
}

Status moe_route_sort(const ExecContext& context, const MoeRouteSortArgs& args) {
  SLUICE_RETURN_IF_ERROR(check(args));
  const int64_t budget =
      args.token_budget < 0 ? moe_route_sort_budget(args.route.logits.cols) : args.token_budget;
  const bool fused = !is_cuda(context.isa) && args.route.logits.rows <= budget;
  ExecContext here = context;
  if (fused) here.pool = nullptr;
  SLUICE_RETURN_IF_ERROR(moe_route(here, args.route));
  MoeSortArgs sort = args.sort;
  sort.ids = args.route.ids;
  sort.k = args.route.k + args.route.rule.shared;
  sort.live_tokens = args.route.live_tokens;
  if (!sort.sorted_weights.empty()) sort.weights = args.route.weights;
  SLUICE_RETURN_IF_ERROR(moe_sort(here, sort));
  if (args.stats != nullptr) ++(fused ? args.stats->fused_calls : args.stats->chained_calls);
  return ok_status();
}

}  // namespace sluice
