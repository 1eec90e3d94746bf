#include "ops/rms_norm/rms_norm.h"

#include <cmath>

#include "ops/kernel_table.h"
#include "ops/parallel.h"
#include "ops/rms_norm/kernels.h"

namespace sluice {
namespace {

constexpr Kernel<RmsNormKernel> kKernels[] = {
#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) \
  {Isa::isa, #name, #in, #weight, #arith, flags, &name},
#include "ops/rms_norm/kernels.inc"
#undef SLUICE_KERNEL
};

// Elements that make it worth waking a worker: a few microseconds of work.
constexpr int64_t kLeastElements = 16384;

Status check_view(const char* tensor, ConstMatrixF32 v, ConstMatrixF32 x) {
  if (v.data == nullptr) return invalid_argument("rms_norm: {}: is missing", tensor);
  if (v.rows != x.rows || v.cols != x.cols)
    return invalid_argument("rms_norm: {}: expected [T, D] = [{}, {}] as x, got [{}, {}]", tensor,
                            x.rows, x.cols, v.rows, v.cols);
  if (v.stride < v.cols)
    return invalid_argument("rms_norm: {}: row stride: expected at least D = {}, got {}", tensor,
                            v.cols, v.stride);
  return ok_status();
}

Status check(const RmsNormArgs& a) {
  if (a.x.cols < 1) return invalid_argument("rms_norm: x: D: expected >= 1, got {}", a.x.cols);
  if (!std::isfinite(a.eps) || a.eps < 0)
    return invalid_argument("rms_norm: eps: expected finite and >= 0, got {}", a.eps);
  SLUICE_RETURN_IF_ERROR(check_view("x", a.x, a.x));
  const bool writes_out = a.mode != RmsNormMode::kNormThenResidual;
  if (writes_out) {
    SLUICE_RETURN_IF_ERROR(check_view("out", a.out, a.x));
    const bool same = a.out.data == a.x.data && a.out.stride == a.x.stride;
    if (!same && views_overlap<const float>(a.out, a.x))
      return invalid_argument("rms_norm: out: must be x or not overlap it");
  }
  if (a.mode == RmsNormMode::kNorm) return ok_status();
  SLUICE_RETURN_IF_ERROR(check_view("residual", a.residual, a.x));
  if (views_overlap<const float>(a.residual, a.x) ||
      (writes_out && views_overlap<const float>(a.residual, a.out)))
    return invalid_argument("rms_norm: residual: must not overlap x or out");
  return ok_status();
}

}  // namespace

std::span<const Kernel<RmsNormKernel>> rms_norm_kernels() {
  return kKernels;
}

Status rms_norm(const ExecContext& context, const RmsNormArgs& args) {
  if (args.x.rows == 0) return ok_status();
  SLUICE_RETURN_IF_ERROR(check(args));
  const auto* kernel = select_kernel(rms_norm_kernels(), context.isa, "f32", "none", "sum32");
  if (kernel == nullptr) return no_kernel("rms_norm", context.isa);
  RmsNormRows all;
  all.x = args.x.data;
  all.x_stride = args.x.stride;
  all.weight = args.weight;
  if (args.mode != RmsNormMode::kNorm) {
    all.residual = args.residual.data;
    all.residual_stride = args.residual.stride;
  }
  if (args.mode != RmsNormMode::kNormThenResidual) {
    all.out = args.out.data;
    all.out_stride = args.out.stride;
  }
  all.stream = context.stream;
  all.d = args.x.cols;
  all.eps = args.eps;
  all.scale = args.scale;
  const int64_t least = ceil_div(kLeastElements, all.d);
  parallel_ranges(context, args.x.rows, balanced_grain(context, args.x.rows, least),
                  [&](int64_t begin, int64_t end) {
                    RmsNormRows part = all;
                    part.x += begin * all.x_stride;
                    if (part.residual != nullptr) part.residual += begin * all.residual_stride;
                    if (part.out != nullptr) part.out += begin * all.out_stride;
                    part.rows = end - begin;
                    kernel->run(part);
                  });
  return ok_status();
}

}  // namespace sluice
