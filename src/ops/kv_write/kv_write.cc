#include "ops/kv_write/kv_write.h"

#include "ops/kernel_table.h"
#include "ops/kv_write/kernels.h"
#include "ops/parallel.h"

namespace sluice {
namespace {

constexpr Kernel<KvWriteKernel> kKernels[] = {
#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) \
  {Isa::isa, #name, #in, #weight, #arith, flags, &name},
#include "ops/kv_write/kernels.inc"
#undef SLUICE_KERNEL
};

constexpr int64_t kLeastElements = 8192;

Status check_rows(const char* tensor, ConstMatrixF32 x, int64_t t, int64_t width) {
  if (x.rows != t || x.cols != width)
    return invalid_argument("kv_write: {}: expected [T, G*C] = [{}, {}], got [{}, {}]", tensor, t,
                            width, x.rows, x.cols);
  if (x.stride < x.cols)
    return invalid_argument("kv_write: {}: row stride: expected at least G*C = {}, got {}", tensor,
                            x.cols, x.stride);
  if (x.data == nullptr && t > 0) return invalid_argument("kv_write: {}: is missing", tensor);
  return ok_status();
}

Status check(const ExecContext& context, const KvWriteArgs& a) {
  const KvCacheView& cache = a.cache;
  if (cache.dtype != DType::kF32 && cache.dtype != DType::kBF16)
    return unimplemented("kv_write: cache: dtype: expected F32 or BF16, got {}",
                         dtype_name(cache.dtype));
  if (cache.kv_heads < 1 || cache.head_size < 1)
    return invalid_argument("kv_write: cache: expected G and C >= 1, got {} and {}", cache.kv_heads,
                            cache.head_size);
  const int64_t t = static_cast<int64_t>(a.slots.size());
  SLUICE_RETURN_IF_ERROR(check_rows("k", a.k, t, cache.kv_heads * cache.head_size));
  SLUICE_RETURN_IF_ERROR(check_rows("v", a.v, t, cache.kv_heads * cache.head_size));
  if (cache.data == nullptr && t > 0) return invalid_argument("kv_write: cache: is missing");
  if (!on_host(context)) return ok_status();
  for (const int32_t s : a.slots)
    if (s >= cache.blocks * kKvBlock)
      return invalid_argument("kv_write: slots: expected below {} (blocks * B), got {}",
                              cache.blocks * kKvBlock, s);
  return ok_status();
}

}  // namespace

std::span<const Kernel<KvWriteKernel>> kv_write_kernels() {
  return kKernels;
}

Status kv_write(const ExecContext& context, const KvWriteArgs& args) {
  SLUICE_RETURN_IF_ERROR(check(context, args));
  const bool f32 = args.cache.dtype == DType::kF32;
  const auto* kernel = select_kernel(kv_write_kernels(), context.isa, f32 ? "f32" : "bf16", "none",
                                     f32 ? "exact" : "round_even");
  if (kernel == nullptr) return no_kernel("kv_write", context.isa);
  KvWriteRows all;
  all.k = args.k.data;
  all.k_stride = args.k.stride;
  all.v = args.v.data;
  all.v_stride = args.v.stride;
  all.slots = args.slots.data();
  all.cache = args.cache.data;
  all.kv_heads = args.cache.kv_heads;
  all.head_size = args.cache.head_size;
  all.stream = context.stream;
  const int64_t t = args.k.rows, width = args.k.cols;
  // A multiple of B rows, so that (but for a chunk's ends) no two workers write one block's lines.
  const int64_t least = round_up(ceil_div(kLeastElements, width), kKvBlock);
  const int64_t grain = round_up(balanced_grain(context, t, least), kKvBlock);
  parallel_ranges(context, t, grain, [&](int64_t begin, int64_t end) {
    KvWriteRows part = all;
    part.k += begin * all.k_stride;
    part.v += begin * all.v_stride;
    part.slots += begin;
    part.rows = end - begin;
    kernel->run(part);
  });
  return ok_status();
}

}  // namespace sluice
