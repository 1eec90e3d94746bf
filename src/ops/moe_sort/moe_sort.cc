#include "ops/moe_sort/moe_sort.h"

#include "ops/moe_sort/kernels.h"
#include "tensor/view.h"

namespace sluice {
namespace {

constexpr Kernel<MoeSortKernel> kKernels[] = {
#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) \
  {Isa::isa, #name, #in, #weight, #arith, flags, &name},
#include "ops/moe_sort/kernels.inc"
#undef SLUICE_KERNEL
};

Status check(const MoeSortArgs& a) {
  const auto pairs = static_cast<int64_t>(a.ids.size());
  if (a.k < 1 || a.k > 64 || pairs % a.k != 0)
    return invalid_argument("moe_sort: ids: expected [T, K] with K in [1, 64], got {} ids, K = {}",
                            pairs, a.k);
  if (pairs > INT32_MAX)
    return invalid_argument("moe_sort: ids: T * K: expected below 2^31, got {}", pairs);
  if (a.experts < 1 || a.experts > 4096)
    return invalid_argument("moe_sort: E: expected in [1, 4096], got {}", a.experts);
  for (const int32_t e : a.expert_map)
    if (e >= a.experts)
      return invalid_argument("moe_sort: expert_map: expected below E = {}, got {}", a.experts, e);
  if (static_cast<int64_t>(a.starts.size()) != a.experts + 1)
    return invalid_argument("moe_sort: starts: expected [E+1] = [{}], got [{}]", a.experts + 1,
                            a.starts.size());
  if (static_cast<int64_t>(a.source.size()) != pairs ||
      static_cast<int64_t>(a.inverse.size()) != pairs)
    return invalid_argument("moe_sort: source, inverse: expected [T*K] = [{}], got [{}] and [{}]",
                            pairs, a.source.size(), a.inverse.size());
  if (a.block_size < 0)
    return invalid_argument("moe_sort: block_size: expected 0 or more, got {}", a.block_size);
  if (a.block_size == 0) return ok_status();
  const int64_t capacity = moe_sort_capacity(pairs, a.experts, a.block_size);
  if (static_cast<int64_t>(a.sorted_pairs.size()) < capacity ||
      static_cast<int64_t>(a.block_experts.size()) < capacity / a.block_size)
    return invalid_argument(
        "moe_sort: sorted_pairs, block_experts: expected room for {} and {}, got {} and {}",
        capacity, capacity / a.block_size, a.sorted_pairs.size(), a.block_experts.size());
  return ok_status();
}

}  // namespace

std::span<const Kernel<MoeSortKernel>> moe_sort_kernels() {
  return kKernels;
}

int64_t moe_sort_capacity(int64_t pairs, int64_t experts, int64_t block_size) {
  if (block_size < 1 || pairs < 1) return 0;
  // The most blocks: each of as many experts as possible takes one pair, the rest fill up blocks.
  const int64_t used = pairs < experts ? pairs : experts;
  return (used + (pairs - used) / block_size) * block_size;
}

Status moe_sort(const ExecContext& context, const MoeSortArgs& args) {
  SLUICE_RETURN_IF_ERROR(check(args));
  const Kernel<MoeSortKernel>* kernel =
      select_kernel(moe_sort_kernels(), context.isa, "any", "none", "exact");
  if (kernel == nullptr) return unimplemented("moe_sort: no kernel");
  kernel->run(args);
  return ok_status();
}

}  // namespace sluice
