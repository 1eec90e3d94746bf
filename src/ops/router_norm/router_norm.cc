#include "ops/router_norm/router_norm.h"

#include <cmath>

#include "ops/kernel_table.h"
#include "ops/parallel.h"
#include "ops/router_norm/kernels.h"

namespace sluice {
namespace {

constexpr Kernel<RouterNormKernel> kKernels[] = {
#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) \
  {Isa::isa, #name, #in, #weight, #arith, flags, &name},
#include "ops/router_norm/kernels.inc"
#undef SLUICE_KERNEL
};

// Elements that make it worth waking a worker: a few microseconds of work.
constexpr int64_t kLeastElements = 16384;

Status check(const RouterNormArgs& a) {
  if (a.x.cols < 1) return invalid_argument("router_norm: x: D: expected >= 1, got {}", a.x.cols);
  if (a.out.rows != a.x.rows || a.out.cols != a.x.cols)
    return invalid_argument("router_norm: out: expected [T, D] = [{}, {}] as x, got [{}, {}]",
                            a.x.rows, a.x.cols, a.out.rows, a.out.cols);
  if (a.x.stride < a.x.cols || a.out.stride < a.x.cols)
    return invalid_argument("router_norm: row stride: expected at least D = {}, got {} and {}",
                            a.x.cols, a.x.stride, a.out.stride);
  if (a.scale == nullptr) return invalid_argument("router_norm: scale: is missing");
  if (!std::isfinite(a.eps) || a.eps < 0)
    return invalid_argument("router_norm: eps: expected finite and >= 0, got {}", a.eps);
  const bool same = a.out.data == a.x.data && a.out.stride == a.x.stride;
  if (!same && views_overlap<const float>(a.out, a.x))
    return invalid_argument("router_norm: out: must be x or not overlap it");
  return ok_status();
}

}  // namespace

std::span<const Kernel<RouterNormKernel>> router_norm_kernels() {
  return kKernels;
}

Status router_norm(const ExecContext& context, const RouterNormArgs& args) {
  if (args.x.rows == 0) return ok_status();
  SLUICE_RETURN_IF_ERROR(check(args));
  const auto* kernel = select_kernel(router_norm_kernels(), context.isa, "f32", "none", "sum32");
  if (kernel == nullptr) return no_kernel("router_norm", context.isa);
  RouterNormRows all;
  all.x = args.x.data;
  all.x_stride = args.x.stride;
  all.scale = args.scale;
  all.out = args.out.data;
  all.out_stride = args.out.stride;
  all.d = args.x.cols;
  all.eps = args.eps;
  all.root = static_cast<float>(1.0 / std::sqrt(static_cast<double>(all.d)));
  all.round = args.round_bf16;
  all.stream = context.stream;
  const int64_t least = ceil_div(kLeastElements, all.d);
  parallel_ranges(context, args.x.rows, balanced_grain(context, args.x.rows, least),
                  [&](int64_t begin, int64_t end) {
                    RouterNormRows part = all;
                    part.x += begin * all.x_stride;
                    part.out += begin * all.out_stride;
                    part.rows = end - begin;
                    kernel->run(part);
                  });
  return ok_status();
}

}  // namespace sluice
