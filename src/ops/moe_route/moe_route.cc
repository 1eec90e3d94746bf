#include "ops/moe_route/moe_route.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "ops/kernel_table.h"
#include "ops/moe_route/bind.h"
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

// Columns of logits that are shared experts'.
int64_t shared_columns(const MoeRouteArgs& a) {
  return a.rule.shared_weight == SharedWeight::kSigmoid ? a.rule.shared : 0;
}
int64_t experts_of(const MoeRouteArgs& a) {
  return a.logits.cols - shared_columns(a);
}
int64_t out_stride(const MoeRouteArgs& a) {
  return a.out_stride == 0 ? a.k + a.rule.shared : a.out_stride;
}

Status check_rule(const RouteRule& rule, int64_t experts, int64_t k) {
  if (!(rule.epsilon >= 0) || !std::isfinite(rule.epsilon) || !std::isfinite(rule.routed_scale))
    return invalid_argument("moe_route: expected epsilon >= 0 and a finite scale, got {} and {}",
                            rule.epsilon, rule.routed_scale);
  const RouteGroups& g = rule.groups;
  if (g.count < 1 || g.count > experts || experts % g.count != 0)
    return invalid_argument("moe_route: groups: expected a divisor of E = {}, got {}", experts,
                            g.count);
  const int64_t each = experts / g.count;
  if (g.kept < 1 || g.kept > g.count || k > g.kept * each)
    return invalid_argument(
        "moe_route: groups: expected 1 to {} kept groups of {} experts that hold K = {}, got {}",
        g.count, each, k, g.kept);
  if (g.score == GroupScore::kSumOf2 && g.count > 1 && each < 2)
    return invalid_argument("moe_route: groups: the sum of two needs 2 experts per group, got {}",
                            each);
  return ok_status();
}

Status check_out(const MoeRouteArgs& a) {
  const int64_t wide = a.k + a.rule.shared, stride = out_stride(a), rows = a.logits.rows;
  if (stride < wide)
    return invalid_argument(
        "moe_route: ids, weights: row stride: expected at least K+S = {}, got {}", wide, stride);
  const int64_t expected =
      a.out_stride == 0 || rows == 0 ? rows * wide : (rows - 1) * stride + wide;
  const auto ids = static_cast<int64_t>(a.ids.size());
  const auto weights = static_cast<int64_t>(a.weights.size());
  const bool enough = a.out_stride == 0 ? ids == expected && weights == expected
                                        : ids >= expected && weights >= expected;
  if (!enough)
    return invalid_argument("moe_route: ids, weights: expected [T*(K+S)] = [{}], got [{}] and [{}]",
                            expected, ids, weights);
  return ok_status();
}

Status check(const MoeRouteArgs& a) {
  if (a.rule.shared < 0 || a.rule.shared > kMaxExpertsPerToken)
    return invalid_argument("moe_route: S: expected in [0, {}], got {}", kMaxExpertsPerToken,
                            a.rule.shared);
  const int64_t e = experts_of(a);
  if (e < 1 || e > kMaxExperts)
    return invalid_argument("moe_route: logits: E: expected in [1, {}], got {}", kMaxExperts, e);
  if (a.k < 1 || a.k > e || a.k > kMaxExpertsPerToken)
    return invalid_argument("moe_route: K: expected in [1, min(E = {}, {})], got {}", e,
                            kMaxExpertsPerToken, a.k);
  if (a.logits.stride < a.logits.cols)
    return invalid_argument("moe_route: logits: row stride: expected at least {} = {}, got {}",
                            shared_columns(a) > 0 ? "E+S" : "E", a.logits.cols, a.logits.stride);
  SLUICE_RETURN_IF_ERROR(check_out(a));
  return check_rule(a.rule, e, a.k);
}

MoeRouteTask bind(const ExecContext& context, const MoeRouteArgs& args) {
  MoeRouteTask task;
  task.logits = args.logits.data;
  task.stride = args.logits.stride;
  task.experts = experts_of(args);
  task.k = args.k;
  task.rule = args.rule;
  task.selection_bias = args.selection_bias;
  task.per_expert_scale = args.per_expert_scale;
  task.ids = args.ids.data();
  task.weights = args.weights.data();
  task.out_stride = out_stride(args);
  if (on_host(context)) return task;
  task.live_tokens = args.live_tokens;
  task.stream = context.stream;
  if (args.stats != nullptr) task.non_finite_rows = &args.stats->non_finite_rows;
  if (args.stats != nullptr) task.zero_rows = &args.stats->zero_rows;
  return task;
}

}  // namespace

std::span<const Kernel<MoeRouteKernel>> moe_route_kernels() {
  return kKernels;
}

std::string_view moe_route_input_name(DType dtype) {
  if (dtype == DType::kF32) return "f32";
  if (dtype == DType::kBF16) return "bf16";
  return dtype == DType::kF16 ? "f16" : "";
}

Result<MoeRouteTask> bind_moe_route(const ExecContext& context, const MoeRouteArgs& args) {
  SLUICE_RETURN_IF_ERROR(check(args));
  MoeRouteTask task = bind(context, args);
  task.end = args.logits.rows;
  return task;
}

Status moe_route(const ExecContext& context, const MoeRouteArgs& args) {
  SLUICE_RETURN_IF_ERROR(check(args));
  const Kernel<MoeRouteKernel>* kernel = select_kernel(
      moe_route_kernels(), context.isa, moe_route_input_name(args.logits.dtype), "none", "f32");
  if (kernel == nullptr)
    return unimplemented("moe_route: logits: expected f32, bf16 or f16, got {}",
                         dtype_name(args.logits.dtype));
  int64_t rows = args.logits.rows;
  if (args.live_tokens != nullptr && on_host(context))
    rows = std::clamp<int64_t>(*args.live_tokens, 0, rows);
  const MoeRouteTask task = bind(context, args);
  std::atomic<int64_t> non_finite{0}, zero{0};
  const int64_t least = ceil_div(kLeastLogits, task.experts);
  parallel_ranges(context, rows, balanced_grain(context, rows, least),
                  [&](int64_t begin, int64_t end) {
                    MoeRouteTask part = task;
                    part.begin = begin;
                    part.end = end;
                    const RouteCounts counts = kernel->run(part);
                    non_finite.fetch_add(counts.non_finite_rows, std::memory_order_relaxed);
                    zero.fetch_add(counts.zero_rows, std::memory_order_relaxed);
                  });
  if (args.stats == nullptr || !on_host(context)) return ok_status();
  args.stats->non_finite_rows += non_finite.load();
  args.stats->zero_rows += zero.load();
  return ok_status();
}

}  // namespace sluice
