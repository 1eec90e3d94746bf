#include "ops/topk/topk.h"

#include <algorithm>

#include "ops/kernel_table.h"
#include "ops/parallel.h"
#include "ops/topk/kernels.h"

namespace sluice {
namespace {

constexpr Kernel<TopkKernel> kKernels[] = {
#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) \
  {Isa::isa, #name, #in, #weight, #arith, flags, &name},
#include "ops/topk/kernels.inc"
#undef SLUICE_KERNEL
};

constexpr int64_t kLeastElements = 65536;

}  // namespace

std::span<const Kernel<TopkKernel>> topk_kernels() {
  return kKernels;
}

Status topk(const ExecContext& context, const TopkArgs& args) {
  const int64_t t = args.x.rows, n = args.x.cols;
  if (n < 1 || n > (int64_t{1} << 20))
    return invalid_argument("topk: x: N: expected 1 to 2^20, got {}", n);
  if (args.k < 1 || args.k > std::min(n, kTopkMost))
    return invalid_argument("topk: K: expected 1 to {}, got {}", std::min(n, kTopkMost), args.k);
  if (args.x.stride < n)
    return invalid_argument("topk: x: row stride: expected at least N = {}, got {}", n,
                            args.x.stride);
  if (static_cast<int64_t>(args.ids.size()) != t * args.k || args.values.size() != args.ids.size())
    return invalid_argument("topk: ids, values: expected T*K = {}, got {} and {}", t * args.k,
                            args.ids.size(), args.values.size());
  const auto* kernel = select_kernel(topk_kernels(), context.isa, "f32", "none", "exact");
  if (kernel == nullptr) return no_kernel("topk", context.isa);
  const int64_t grain = balanced_grain(context, t, ceil_div(kLeastElements, n));
  parallel_ranges(context, t, grain, [&](int64_t begin, int64_t end) {
    TopkRows part;
    part.x = args.x.row(begin);
    part.x_stride = args.x.stride;
    part.rows = end - begin;
    part.n = n;
    part.k = args.k;
    part.ids = args.ids.data() + begin * args.k;
    part.values = args.values.data() + begin * args.k;
    part.stream = context.stream;
    kernel->run(part);
  });
  return ok_status();
}

}  // namespace sluice
