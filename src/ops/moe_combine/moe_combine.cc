#include "ops/moe_combine/moe_combine.h"

#include <cmath>

#include "ops/kernel_table.h"
#include "ops/moe_combine/kernels.h"
#include "ops/parallel.h"

namespace sluice {
namespace {

constexpr Kernel<MoeCombineKernel> kKernels[] = {
#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) \
  {Isa::isa, #name, #in, #weight, #arith, flags, &name},
#include "ops/moe_combine/kernels.inc"
#undef SLUICE_KERNEL
};

// Below this many products per worker a second worker costs more than it saves.
constexpr int64_t kLeastProducts = 32768;

Status check(const ExecContext& context, const MoeCombineArgs& a, const MatrixF32& out) {
  const int64_t pairs = out.rows * a.k;
  if (a.k < 1 || a.k > kMaxRowsPerToken)
    return invalid_argument("moe_combine: K: expected in [1, {}], got {}", kMaxRowsPerToken, a.k);
  if (static_cast<int64_t>(a.inverse.size()) != pairs ||
      (!a.weights.empty() && static_cast<int64_t>(a.weights.size()) != pairs))
    return invalid_argument("moe_combine: inverse, weights: expected [T*K] = [{}], got [{}], [{}]",
                            pairs, a.inverse.size(), a.weights.size());
  if (a.y.cols != out.cols || a.y.stride < a.y.cols || out.stride < out.cols || out.cols < 1)
    return invalid_argument("moe_combine: y: D: expected {} as the output, got {}", out.cols,
                            a.y.cols);
  for (const int32_t slot : on_host(context) ? a.inverse : std::span<const int32_t>())
    if (slot >= a.y.rows)
      return invalid_argument("moe_combine: inverse: expected a slot below R = {}, got {}",
                              a.y.rows, slot);
  const bool norms = a.then != CombineThen::kStore && a.then != CombineThen::kResidualAdd;
  if (norms && !(std::isfinite(a.eps) && a.eps >= 0))
    return invalid_argument("moe_combine: eps: expected a finite number >= 0, got {}", a.eps);
  const float* y_end = a.y.data + a.y.rows * a.y.stride;
  const float* out_end = out.data + out.rows * out.stride;
  if (a.y.rows > 0 && out.rows > 0 && out.data < y_end && a.y.data < out_end)
    return invalid_argument("moe_combine: the output must not alias y");
  return ok_status();
}

// A second matrix of the forms that write one.
Status check_like_out(std::string_view tensor, const MatrixF32& m, const MatrixF32& out) {
  if (m.rows != out.rows || m.cols != out.cols || m.stride < m.cols)
    return invalid_argument("moe_combine: {}: expected [T, D] = [{}, {}], got [{}, {}]", tensor,
                            out.rows, out.cols, m.rows, m.cols);
  if (m.rows > 0 && m.data < out.data + out.rows * out.stride &&
      out.data < m.data + m.rows * m.stride)
    return invalid_argument("moe_combine: {}: must not alias the output", tensor);
  return ok_status();
}
Status check_form(const MoeCombineArgs& a, const MatrixF32& out) {
  if (a.then != CombineThen::kResidualThenNorm && a.then != CombineThen::kBranches)
    return ok_status();
  SLUICE_RETURN_IF_ERROR(check_like_out("residual", a.residual, out));
  if (a.then != CombineThen::kBranches) return ok_status();
  return check_like_out("branch", a.branches.branch, out);
}

}  // namespace

std::span<const Kernel<MoeCombineKernel>> moe_combine_kernels() {
  return kKernels;
}

Status moe_combine(const ExecContext& context, const MoeCombineArgs& args) {
  const MatrixF32& out = args.then == CombineThen::kResidualAdd ? args.residual : args.out;
  SLUICE_RETURN_IF_ERROR(check(context, args, out));
  SLUICE_RETURN_IF_ERROR(check_form(args, out));
  const Kernel<MoeCombineKernel>* kernel =
      select_kernel(moe_combine_kernels(), context.isa, "f32", "none", "f32_fma");
  if (kernel == nullptr) return no_kernel("moe_combine", context.isa);
  MoeCombineTask task;
  task.y = args.y.data;
  task.y_stride = args.y.stride;
  task.inverse = args.inverse.data();
  task.weights = args.weights.empty() ? nullptr : args.weights.data();
  task.k = args.k;
  task.d = out.cols;
  task.then = args.then;
  task.rounding = args.rounding;
  task.norm_weight = args.norm_weight;
  task.eps = args.eps;
  task.out = out.data;
  task.out_stride = out.stride;
  task.residual = args.residual.data;
  task.residual_stride = args.residual.stride;
  task.branch = args.branches.branch.data;
  task.branch_stride = args.branches.branch.stride;
  task.branch_weight = args.branches.branch_weight;
  task.post_weight = args.branches.post_weight;
  task.scale = args.branches.scale;
  task.stream = context.stream;
  const int64_t least = ceil_div(kLeastProducts, args.k * out.cols);
  parallel_ranges(context, out.rows, balanced_grain(context, out.rows, least),
                  [&](int64_t begin, int64_t end) {
                    MoeCombineTask part = task;
                    part.begin = begin;
                    part.end = end;
                    kernel->run(part);
                  });
  return ok_status();
}

}  // namespace sluice
