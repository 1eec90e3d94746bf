#include "ops/moe_sort/moe_sort.h"

#include "ops/kernel_table.h"
#include "ops/moe_sort/bind.h"
#include "ops/moe_sort/kernels.h"
#include "ops/moe_sort/pairs.h"
#include "tensor/view.h"

namespace sluice {
namespace {

constexpr Kernel<MoeSortKernel> kKernels[] = {
#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) \
  {Isa::isa, #name, #in, #weight, #arith, flags, &name},
#include "ops/moe_sort/kernels.inc"
#undef SLUICE_KERNEL
};

int64_t pairs_of(const MoeSortArgs& a) {
  return static_cast<int64_t>(a.ids.size());
}

Status check_ids(const MoeSortArgs& a) {
  const int64_t pairs = pairs_of(a);
  if (a.k < 1 || a.k > kSortMostSlots || pairs % a.k != 0)
    return invalid_argument("moe_sort: ids: expected [T, K] with K in [1, {}], got {} ids, K = {}",
                            kSortMostSlots, pairs, a.k);
  if (pairs > INT32_MAX)
    return invalid_argument("moe_sort: ids: T * K: expected below 2^31, got {}", pairs);
  if (a.experts < 1 || a.experts > kSortMostExperts)
    return invalid_argument("moe_sort: E: expected in [1, {}], got {}", kSortMostExperts,
                            a.experts);
  return ok_status();
}

Status check_experts(const ExecContext& context, const MoeSortArgs& a) {
  if (!a.expert_map.empty() && !a.expert_mask.empty())
    return invalid_argument("moe_sort: expert_map, expert_mask: expected one of them, got both");
  for (const int32_t e : on_host(context) ? a.expert_map : std::span<const int32_t>())
    if (e >= a.experts)
      return invalid_argument("moe_sort: expert_map: expected below E = {}, got {}", a.experts, e);
  if (a.expert_mask.empty()) return ok_status();
  if (static_cast<int64_t>(a.expert_mask.size()) > kSortMostExperts)
    return invalid_argument("moe_sort: expert_mask: expected at most {} experts, got {}",
                            kSortMostExperts, a.expert_mask.size());
  if (!on_host(context)) return ok_status();
  int64_t ones = 0;
  for (const int32_t m : a.expert_mask) ones += m != 0 ? 1 : 0;
  if (ones != a.experts)
    return invalid_argument("moe_sort: expert_mask: expected E = {} experts, got {}", a.experts,
                            ones);
  return ok_status();
}

template <class T>
Status check_optional(const char* tensor, const char* dims, std::span<T> v, int64_t expected) {
  if (v.empty() || static_cast<int64_t>(v.size()) == expected) return ok_status();
  return invalid_argument("moe_sort: {}: expected [{}] = [{}] or none, got [{}]", tensor, dims,
                          expected, v.size());
}

Status check_csr(const MoeSortArgs& a) {
  const int64_t pairs = pairs_of(a), e = a.experts;
  if (static_cast<int64_t>(a.starts.size()) != e + 1)
    return invalid_argument("moe_sort: starts: expected [E+1] = [{}], got [{}]", e + 1,
                            a.starts.size());
  SLUICE_RETURN_IF_ERROR(check_optional("source", "T*K", a.source, pairs));
  SLUICE_RETURN_IF_ERROR(check_optional("order", "T*K", a.order, pairs));
  SLUICE_RETURN_IF_ERROR(check_optional("inverse", "T*K", a.inverse, pairs));
  SLUICE_RETURN_IF_ERROR(check_optional("local_ids", "T*K", a.local_ids, pairs));
  SLUICE_RETURN_IF_ERROR(check_optional("counts", "E", a.counts, e));
  SLUICE_RETURN_IF_ERROR(check_optional("totals", "E", a.totals, e));
  return check_optional("expert_ids", "E", a.expert_ids, e);
}

Status check_blocks(const MoeSortArgs& a) {
  const int64_t pairs = pairs_of(a), block = a.block_size;
  if (block < 0 || block > (int64_t{1} << 20))
    return invalid_argument("moe_sort: block_size: expected in [0, 2^20], got {}", block);
  if (block == 0) return ok_status();
  if (a.form == PairForm::kPacked && pairs / a.k > kPackedMostTokens)
    return invalid_argument(
        "moe_sort: sorted_pairs: T: the packed form holds a token in 24 bits: expected at most {}, "
        "got {} (the flat form has no such limit)",
        kPackedMostTokens, pairs / a.k);
  const int64_t capacity = a.distinct_ids
                               ? moe_sort_distinct_capacity(pairs / a.k, a.k, a.experts, block)
                               : moe_sort_capacity(pairs, a.experts, block);
  if (capacity > INT32_MAX)
    return invalid_argument("moe_sort: sorted_pairs: capacity: expected below 2^31, got {}",
                            capacity);
  if (static_cast<int64_t>(a.sorted_pairs.size()) < capacity ||
      static_cast<int64_t>(a.block_experts.size()) < capacity / block)
    return invalid_argument(
        "moe_sort: sorted_pairs, block_experts: expected room for {} and {}, got {} and {}",
        capacity, capacity / block, a.sorted_pairs.size(), a.block_experts.size());
  if (a.sorted_weights.empty()) return ok_status();
  if (static_cast<int64_t>(a.weights.size()) != pairs)
    return invalid_argument("moe_sort: weights: expected [T, K] = [{}] values, got [{}]", pairs,
                            a.weights.size());
  if (a.sorted_weights.size() < a.sorted_pairs.size())
    return invalid_argument("moe_sort: sorted_weights: expected room as sorted_pairs, {}, got {}",
                            a.sorted_pairs.size(), a.sorted_weights.size());
  return ok_status();
}

template <class T>
T* pointer(std::span<T> v) {
  return v.empty() ? nullptr : v.data();
}

void bind_experts(const MoeSortArgs& a, MoeSortTask& task) {
  task.map = pointer(a.expert_map);
  task.mask = pointer(a.expert_mask);
  task.global = a.experts;
  if (!a.expert_map.empty()) task.global = static_cast<int64_t>(a.expert_map.size());
  if (!a.expert_mask.empty()) task.global = static_cast<int64_t>(a.expert_mask.size());
}

MoeSortTask bind(const MoeSortArgs& a) {
  MoeSortTask task;
  task.ids = a.ids.data();
  task.tokens = pairs_of(a) / a.k;
  task.k = a.k;
  task.experts = a.experts;
  bind_experts(a, task);
  task.live_tokens = a.live_tokens;
  task.starts = a.starts.data();
  task.source = pointer(a.source);
  task.order = pointer(a.order);
  task.inverse = pointer(a.inverse);
  task.local_ids = pointer(a.local_ids);
  task.counts = pointer(a.counts);
  task.totals = pointer(a.totals);
  task.expert_ids = pointer(a.expert_ids);
  task.live_count = a.live_count;
  task.stats = a.stats;
  task.fill_tails = a.fill_tails;
  if (a.block_size == 0) return task;
  task.block_size = a.block_size;
  task.form = a.form;
  task.weights = a.weights.data();
  task.sorted_pairs = a.sorted_pairs.data();
  task.sorted_weights = pointer(a.sorted_weights);
  task.block_experts = a.block_experts.data();
  task.sorted_room = static_cast<int64_t>(a.sorted_pairs.size());
  task.weights_room = static_cast<int64_t>(a.sorted_weights.size());
  task.blocks_room = static_cast<int64_t>(a.block_experts.size());
  if (task.blocks_room < task.sorted_room / a.block_size)
    task.sorted_room = task.blocks_room * a.block_size;
  task.padded_rows = a.padded_rows;
  return task;
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

int64_t moe_sort_distinct_capacity(int64_t tokens, int64_t k, int64_t experts, int64_t block_size) {
  return moe_sort_capacity(tokens * (k < experts ? k : experts), experts, block_size);
}

Result<MoeSortTask> bind_moe_sort(const ExecContext& context, const MoeSortArgs& args) {
  SLUICE_RETURN_IF_ERROR(check_ids(args));
  SLUICE_RETURN_IF_ERROR(check_experts(context, args));
  SLUICE_RETURN_IF_ERROR(check_csr(args));
  SLUICE_RETURN_IF_ERROR(check_blocks(args));
  MoeSortTask task = bind(args);
  task.stream = context.stream;
  return task;
}

Status moe_sort(const ExecContext& context, const MoeSortArgs& args) {
  SLUICE_ASSIGN_OR_RETURN(const MoeSortTask task, bind_moe_sort(context, args));
  const Kernel<MoeSortKernel>* kernel =
      select_kernel(moe_sort_kernels(), context.isa, "any", "none", "exact");
  if (kernel == nullptr) return no_kernel("moe_sort", context.isa);
  if (!kernel->run(task))
    return invalid_argument(
        "moe_sort: ids: a row names an expert twice although distinct_ids promises that none does, "
        "and sorted_pairs with {} entries cannot hold the blocks",
        args.sorted_pairs.size());
  return ok_status();
}

}  // namespace sluice
