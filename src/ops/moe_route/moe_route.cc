#include "ops/moe_route/moe_route.h"

#include <atomic>
#include <cmath>

#include "ops/kernel_table.h"
#include "ops/moe_route/kernels.h"
#include "ops/parallel.h"

namespace sluice {
namespace {

constexpr Kernel<MoeRouteKernel> kKernels[] = {
#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) \
  {Isa::isa, #name, #in, #weight, #arith, flags, &name},
#include "ops/moe_route/kernels.inc"
#undef SLUICE_KERNEL
};

// Below this many logits per worker a second worker costs more than it saves.
constexpr int64_t kLeastLogits = 4096;

Status check(const MoeRouteArgs& a) {
  const int64_t e = a.logits.cols, pairs = a.logits.rows * a.k;
  if (e < 1 || e > kMaxExperts)
    return invalid_argument("moe_route: logits: E: expected in [1, {}], got {}", kMaxExperts, e);
  if (a.k < 1 || a.k > e || a.k > kMaxExpertsPerToken)
    return invalid_argument("moe_route: K: expected in [1, min(E = {}, {})], got {}", e,
                            kMaxExpertsPerToken, a.k);
  if (a.logits.stride < e)
    return invalid_argument("moe_route: logits: row stride: expected at least E = {}, got {}", e,
                            a.logits.stride);
  if (static_cast<int64_t>(a.ids.size()) != pairs ||
      static_cast<int64_t>(a.weights.size()) != pairs)
    return invalid_argument("moe_route: ids, weights: expected [T*K] = [{}], got [{}] and [{}]",
                            pairs, a.ids.size(), a.weights.size());
  if (!(a.rule.epsilon >= 0) || !std::isfinite(a.rule.epsilon) ||
      !std::isfinite(a.rule.routed_scale))
    return invalid_argument("moe_route: expected epsilon >= 0 and a finite scale, got {} and {}",
                            a.rule.epsilon, a.rule.routed_scale);
  return ok_status();
}

}  // namespace

std::span<const Kernel<MoeRouteKernel>> moe_route_kernels() {
  return kKernels;
}

Status moe_route(const ExecContext& context, const MoeRouteArgs& args) {
  SLUICE_RETURN_IF_ERROR(check(args));
  const Kernel<MoeRouteKernel>* kernel =
      select_kernel(moe_route_kernels(), context.isa, "f32", "none", "f32");
  if (kernel == nullptr) return unimplemented("moe_route: no kernel");
  MoeRouteTask task;
  task.logits = args.logits.data;
  task.stride = args.logits.stride;
  task.experts = args.logits.cols;
  task.k = args.k;
  task.rule = args.rule;
  task.selection_bias = args.selection_bias;
  task.per_expert_scale = args.per_expert_scale;
  task.ids = args.ids.data();
  task.weights = args.weights.data();
  const int64_t rows = args.logits.rows;
  std::atomic<int64_t> non_finite{0};
  const int64_t least = ceil_div(kLeastLogits, args.logits.cols);
  parallel_ranges(context, rows, balanced_grain(context, rows, least),
                  [&](int64_t begin, int64_t end) {
                    MoeRouteTask part = task;
                    part.begin = begin;
                    part.end = end;
                    non_finite.fetch_add(kernel->run(part), std::memory_order_relaxed);
                  });
  if (args.stats != nullptr) args.stats->non_finite_rows += non_finite.load();
  return ok_status();
}

}  // namespace sluice
